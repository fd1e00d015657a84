"""The worker: order of messages, one pipeline kept, cancelling, failures, errands, closing."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scripted_pipeline import REQUEST, FakePipeline, Plan, order

from hummingbird_demo import worker as w
from hummingbird_demo.orders import RunFile
from hummingbird_runtime import HummingbirdError, InputError, ResourceError


def wait_for(worker: w.Worker, kind: type, found: list | None = None, timeout: float = 10.0):
    """Every message up to the first of a kind."""
    found = [] if found is None else found
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        found += worker.messages()
        if any(isinstance(message, kind) for message in found):
            return found
        time.sleep(0.002)
    raise AssertionError(f"no {kind.__name__} in {timeout} s, got {found}")


@pytest.fixture
def pipes():
    return []


@pytest.fixture
def make(pipes):
    workers = []

    def start(run_file: RunFile | None = None, **options) -> w.Worker:
        def open_fake(_):
            pipes.append(FakePipeline(**options))
            return pipes[-1]

        workers.append(w.Worker(run_file, open_fake))
        return workers[-1]

    yield start
    assert all(worker.close() for worker in workers), "a thread did not end"


def test_a_clip_comes_as_opening_begun_steps_frames_and_the_video(make, pipes):
    worker = make()
    worker.draw(order(3))
    found = wait_for(worker, w.Drawn)
    kinds = [type(message).__name__ for message in found]
    assert kinds == ["Opening", "Begun", "Noted", *["StepDone"] * 3, *["FramesDone"] * 2, "Drawn"]
    assert {message.number for message in found} == {3}
    assert [m.i for m in found if isinstance(m, w.StepDone)] == [0, 1, 2]
    assert found[-1].video.frames.shape == (4, 16, 16, 3)
    assert pipes[0].calls[0]["seed"] == 7


def test_previews_are_made_before_the_message_so_the_screen_need_not(make):
    worker = make()
    worker.draw(order())
    step = next(m for m in wait_for(worker, w.Drawn) if isinstance(m, w.StepDone))
    assert step.preview.dtype == np.uint8
    assert step.preview.shape == (4, 2, 2, 3)


def test_the_pipeline_is_kept_until_another_model_or_style_is_asked_for(make, pipes):
    worker = make()
    for number, request in enumerate((REQUEST, REQUEST, replace(REQUEST, style="ink"))):
        worker.draw(order(number, request=request))
        wait_for(worker, w.Drawn)
    worker.draw(order(4, bundle=Path("other")))
    wait_for(worker, w.Drawn)
    assert [pipe.closed for pipe in pipes] == [1, 1, 0]


def test_cancel_ends_the_clip_within_a_tenth_of_a_second_and_the_next_one_draws(make, pipes):
    worker = make(hold=True)
    worker.draw(order(1))
    wait_for(worker, w.Noted)
    started = time.monotonic()
    worker.cancel()
    found = wait_for(worker, w.Ended)
    assert time.monotonic() - started < 1.0  # the fake looks every 5 ms; a busy machine adds
    assert found[-1] == w.Ended(1, None)
    pipes[0].gate.set()
    worker.draw(order(2))
    assert wait_for(worker, w.Drawn)[-1].number == 2


def test_cancel_before_the_work_starts_opens_nothing(make, pipes):
    worker = make(hold=True)
    worker.draw(order(1))
    wait_for(worker, w.Noted)
    worker.draw(order(2))
    worker.cancel()  # the second, still waiting
    pipes[0].gate.set()
    found = wait_for(worker, w.Ended)
    assert found[-1] == w.Ended(2, None)
    assert len(pipes[0].calls) == 1


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (InputError("request.size", "too large"), "request.size"),
        (ZeroDivisionError("oops"), "internal.bug"),
    ],
)
def test_every_failure_arrives_typed_and_the_worker_lives(make, pipes, raised, code):
    worker = make(fail=raised)
    worker.draw(order(1))
    ended = wait_for(worker, w.Ended)[-1]
    assert isinstance(ended.error, HummingbirdError)
    assert ended.error.code == code
    pipes[0].fail = None
    worker.draw(order(2))
    assert wait_for(worker, w.Drawn)[-1].number == 2


def test_a_model_that_cannot_be_opened_is_a_failure_of_its_order(make):
    worker = w.Worker(
        None, lambda _: (_ for _ in ()).throw(ResourceError("bundle.unreadable", "x"))
    )
    worker.draw(order())
    assert wait_for(worker, w.Ended)[-1].error.code == "bundle.unreadable"
    assert worker.close()


def test_a_clip_that_does_not_fit_is_not_begun(make, pipes):
    worker = make(plan=Plan(peak_bytes=5 << 30, available_bytes=1 << 30, fits=False))
    worker.draw(order())
    assert wait_for(worker, w.Short)[-1] == w.Short(1, 5 << 30, 1 << 30)
    assert pipes[0].calls == []


def test_errands_run_beside_a_clip_and_report_values_news_and_errors(make, pipes):
    worker = make(hold=True)
    worker.draw(order())
    wait_for(worker, w.Noted)

    def errand(news, token):
        news(1, 2)
        return "value"

    def broken(news, token):
        raise InputError("import.bad_zip", "broken")

    worker.do("good", errand)
    worker.do("bad", broken)
    found = wait_for(worker, w.ErrandDone)
    while len([m for m in found if isinstance(m, w.ErrandDone)]) < 2:
        found += worker.messages()
    assert w.ErrandNews("good", 1, 2) in found
    assert w.ErrandDone("good", "value", None) in found
    assert next(m for m in found if getattr(m, "name", "") == "bad").error.code == "import.bad_zip"
    pipes[0].gate.set()


def test_an_errand_is_cancelled_by_name(make):
    worker = make()

    def errand(news, token):
        while True:
            token.raise_if_cancelled()
            time.sleep(0.001)

    worker.do("import", errand)
    worker.cancel_errand("import")
    assert wait_for(worker, w.ErrandDone)[-1].error.code == "runtime.cancelled"


def test_warm_opens_ahead_and_release_closes(make, pipes):
    worker = make()
    worker.warm(order())
    worker.draw(order())
    wait_for(worker, w.Drawn)
    assert pipes[0].loads == 1
    worker.release()
    worker.draw(order())
    wait_for(worker, w.Drawn)
    assert pipes[0].closed == 1
    assert len(pipes) == 2


def test_the_run_file_lies_there_while_drawing_and_goes_with_the_clip(make, pipes, tmp_path):
    run_file = RunFile(tmp_path, lambda key: Path("bundle"))
    worker = make(run_file, hold=True)
    worker.draw(order())
    wait_for(worker, w.Noted)
    assert (tmp_path / "run.json").is_file()
    assert pipes[0].calls[0]["checkpoint"] == tmp_path / "run.npz"
    pipes[0].gate.set()
    wait_for(worker, w.Drawn)
    worker.do("after", lambda news, token: None)
    worker.forget_run()
    assert worker.close()
    assert not list(tmp_path.iterdir())


def test_closing_in_the_middle_keeps_the_run_for_the_next_start(make, pipes, tmp_path):
    worker = make(RunFile(tmp_path, lambda key: Path("bundle")), hold=True)
    worker.draw(order())
    wait_for(worker, w.Noted)
    assert worker.close()
    assert (tmp_path / "run.json").is_file()
    assert pipes[0].closed == 1


def test_an_order_that_goes_on_keeps_the_checkpoint(make, pipes, tmp_path):
    (tmp_path / "run.npz").write_bytes(b"state")
    worker = make(RunFile(tmp_path, lambda key: Path("bundle")), hold=True)
    worker.draw(replace(order(), goes_on=True))
    wait_for(worker, w.Noted)
    assert (tmp_path / "run.npz").read_bytes() == b"state"
    worker.cancel()
    wait_for(worker, w.Ended)
    worker.draw(order(2))
    pipes[0].gate.set()
    wait_for(worker, w.Drawn)
    assert worker.close()
    assert not (tmp_path / "run.npz").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="priorities of threads are Linux's")
def test_computing_gives_way_to_the_screen() -> None:
    ours = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    told: queue.SimpleQueue[int] = queue.SimpleQueue()

    def errand(news: object, token: object) -> None:
        told.put(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    worker = w.Worker()
    worker.do("look", errand)
    assert told.get(timeout=10) == max(ours, w.NICENESS)
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == ours
    worker.close()
