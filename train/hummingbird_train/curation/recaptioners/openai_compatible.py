"""Captions rewritten by any endpoint that speaks OpenAI's chat completions, by urllib alone.

The key comes from an environment variable and goes into one header: never into a message, a log or
another host (redirects are refused). Busy, slow and broken answers are retried by the caller.
"""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

from hummingbird_runtime.errors import InputError, ResourceError, UsageError
from hummingbird_train.curation.recaptioners.instruction import VERSION, first_line, messages
from hummingbird_train.curation.recaptioners.retries import Transient

MAX_ANSWER = 1 << 20
_BUSY = frozenset({408, 409, 425, 429})
_REFUSED = frozenset({401, 402, 403, 404, 405})


@dataclass(frozen=True)
class EndpointConfig:
    """Which endpoint, which model."""

    base_url: str
    """http(s)://host[:port]/v1"""
    model: str
    """as the endpoint calls it"""
    key_variable: str = "OPENAI_API_KEY"
    """environment variable of the key; may be unset for a server of your own"""
    timeout: float = 60.0
    """seconds of one call"""
    max_tokens: int = 96
    """of one answer"""
    temperature: float = 0.0
    """0 asks for the likeliest words"""


class OpenAICompatible:
    """Rewrites captions by HTTP. Thread-safe.

    Args:
        config: the endpoint.

    Raises:
        UsageError: ``recaption.endpoint`` for a base URL that is no http(s) address.
    """

    def __init__(self, config: EndpointConfig) -> None:
        parts = urllib.parse.urlsplit(config.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise UsageError(
                "recaption.endpoint",
                f"base URL: got {config.base_url[:80]!r}, expected http(s)://host/v1 without a key",
                hint=f"the key comes from the environment variable {config.key_variable}",
            )
        self.name = f"openai:{config.model}"
        self.identity = "/".join(
            ["openai", str(VERSION), config.base_url.rstrip("/"), config.model,
             str(config.max_tokens), str(config.temperature)]
        )  # fmt: skip
        self._config = config
        self._url = config.base_url.rstrip("/") + "/chat/completions"
        self._open = urllib.request.build_opener(_NoRedirect).open

    def rewrite(self, caption: str) -> str:
        """Ask for one caption.

        Raises:
            Transient: 408, 409, 425, 429, 5xx, no connection, a time-out, an answer that is no
                chat completion.
            ResourceError: ``recaption.refused`` for 401 to 405 and redirects: nothing will pass.
            InputError: ``recaption.rejected`` for any other 4xx: this caption will not pass.
        """
        config = self._config
        body = {
            "model": config.model,
            "messages": messages(caption),
            "temperature": config.temperature,
            "max_tokens": config.max_tokens,
            "seed": 0,
            "stream": False,
        }
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key := os.environ.get(config.key_variable, "").strip():
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self._url, json.dumps(body).encode(), headers)
        try:
            with self._open(request, timeout=config.timeout) as response:
                data = response.read(MAX_ANSWER + 1)
        except urllib.error.HTTPError as error:
            with error:
                raise self._failure(error) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise Transient(f"no answer: {type(error).__name__}: {reason}") from None
        return first_line(_content(data))

    def close(self) -> None:
        """Nothing is held open."""

    def _failure(self, error: urllib.error.HTTPError) -> Exception:
        code, why = error.code, _why(error)
        if code in _BUSY or code >= 500:
            return Transient(f"HTTP {code} {why}", _retry_after(error.headers.get("Retry-After")))
        if code in _REFUSED or code < 400:
            return ResourceError(
                "recaption.refused",
                f"endpoint {self._url}: got HTTP {code} {why}, expected an answer",
                hint=f"check the base URL, the model, and the key in {self._config.key_variable}",
            )
        return InputError(
            "recaption.rejected",
            f"got HTTP {code} {why}, expected a rewrite",
            hint="the endpoint does not take this caption",
        )


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """urllib would carry the key to wherever a redirect points."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _content(data: bytes) -> str:
    if len(data) > MAX_ANSWER:
        raise Transient(f"an answer of more than {MAX_ANSWER} bytes")
    try:
        text = json.loads(data)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise Transient(f"no chat completion: {type(error).__name__}") from None
    if not isinstance(text, str):
        raise Transient(f"no chat completion: content is {type(text).__name__}")
    return text


def _why(error: urllib.error.HTTPError) -> str:
    """The endpoint's own words, short, without control characters."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, http.client.HTTPException):
        text = str(json.loads(error.read(4096))["error"]["message"])
        return "(" + " ".join("".join(c for c in text if c.isprintable()).split())[:160] + ")"
    return str(error.reason or "")[:60]


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, given as a number or a date."""
    if value is None:
        return None
    with contextlib.suppress(ValueError):
        return max(0.0, float(value))
    with contextlib.suppress(TypeError, ValueError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None
