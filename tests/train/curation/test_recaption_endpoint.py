"""The HTTP recaptioner against a server on this machine that misbehaves in every way."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from hummingbird_runtime.errors import InputError, ResourceError, UsageError
from hummingbird_train.curation.recaptioners.openai_compatible import (
    EndpointConfig,
    OpenAICompatible,
)
from hummingbird_train.curation.recaptioners.retries import Transient

KEY = "sk-secret-0123456789"


class _Server(http.server.ThreadingHTTPServer):
    """Answers by its script: (status, headers, body) or a delay."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script: list[tuple[int, dict[str, str], bytes]] = []
        self.seen: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.delay = 0.0

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that gave up is what one test is about


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server: Any = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server.seen.append((self.path, dict(self.headers), json.loads(body)))
        time.sleep(server.delay)
        status, headers, data = server.script.pop(0)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TEST_KEY", KEY)
    made = _Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def _client(server: _Server, **changes: Any) -> OpenAICompatible:
    url = f"http://127.0.0.1:{server.server_port}/v1/"
    return OpenAICompatible(EndpointConfig(url, "small", "TEST_KEY", **changes))


def _answer(text: object) -> bytes:
    return json.dumps({"choices": [{"message": {"content": text}}]}).encode()


def test_a_caption_goes_out_as_a_chat_and_the_first_line_comes_back(server: _Server) -> None:
    server.script = [(200, {}, _answer('\n "A red car drives." \nI hope this helps!'))]
    assert _client(server).rewrite("red car 4k") == "A red car drives."
    path, headers, body = server.seen[0]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert body["messages"][0]["role"] == "system"
    assert body["messages"][-1] == {"role": "user", "content": "Red car."}
    assert (body["model"], body["temperature"], body["stream"]) == ("small", 0.0, False)


def test_no_key_is_no_header(server: _Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_KEY")
    server.script = [(200, {}, _answer("A car."))]
    _client(server).rewrite("car")
    assert "Authorization" not in server.seen[0][1]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_busy_and_broken_are_worth_another_try(server: _Server, status: int) -> None:
    server.script = [(status, {"Retry-After": "7"}, b'{"error": {"message": "slow \\u001b down"}}')]
    with pytest.raises(Transient, match=rf"HTTP {status} \(slow down\)") as caught:
        _client(server).rewrite("car")
    assert caught.value.retry_after == 7.0


def test_retry_after_may_be_a_date_or_nonsense(server: _Server) -> None:
    server.script = [
        (429, {"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}, b""),
        (429, {"Retry-After": "soon"}, b"<html>"),
    ]
    for expected in (0.0, None):
        with pytest.raises(Transient) as caught:
            _client(server).rewrite("car")
        assert caught.value.retry_after == expected


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>hello</html>", b"[1]", b'{"choices": []}', _answer(None), _answer(["a"]),
     b'{"choices": [{"message": {"content": "torn', b"\xff\xfe", b"[" * 3000],
)  # fmt: skip
def test_garbage_is_worth_another_try(server: _Server, body: bytes) -> None:
    server.script = [(200, {}, body)]
    with pytest.raises(Transient, match="no chat completion"):
        _client(server).rewrite("car")


def test_an_endless_answer_is_cut_off(server: _Server) -> None:
    server.script = [(200, {}, b"x" * ((1 << 20) + 9))]
    with pytest.raises(Transient, match="more than"):
        _client(server).rewrite("car")


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_or_model_stops_everything_without_showing_the_key(
    server: _Server, status: int
) -> None:
    server.script = [(status, {}, b'{"error": {"message": "no such model"}}')]
    with pytest.raises(ResourceError, match="no such model") as caught:
        _client(server).rewrite("car")
    assert caught.value.code == "recaption.refused"
    assert KEY not in str(caught.value)
    assert "TEST_KEY" in str(caught.value)


def test_one_refused_caption_is_its_own_failure(server: _Server) -> None:
    server.script = [(400, {}, b'{"error": {"message": "content filter"}}')]
    with pytest.raises(InputError, match="content filter"):
        _client(server).rewrite("car")


def test_a_redirect_never_gets_the_key(server: _Server) -> None:
    server.script = [(307, {"Location": f"http://127.0.0.1:{server.server_port}/else"}, b"")]
    with pytest.raises(ResourceError, match="HTTP 307"):
        _client(server).rewrite("car")
    assert len(server.seen) == 1


def test_silence_runs_into_the_time_limit(server: _Server) -> None:
    server.delay = 0.6
    server.script = [(200, {}, _answer("late"))]
    with pytest.raises(Transient, match="no answer"):
        _client(server, timeout=0.1).rewrite("car")


def test_a_closed_port_is_worth_another_try() -> None:
    closed = OpenAICompatible(EndpointConfig("http://127.0.0.1:9/v1", "small", timeout=2.0))
    with pytest.raises(Transient, match="no answer"):
        closed.rewrite("car")


@pytest.mark.parametrize("url", ["ftp://host/v1", "localhost:8000", "", "http://k:s@host/v1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="base URL"):
        OpenAICompatible(EndpointConfig(url, "small"))
