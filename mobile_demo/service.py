"""Draws one clip in Android's foreground service: the runtime and no Kivy.

The app and the service are two processes that share a folder of the app's private storage:
``job.json`` says what to draw, ``state.json`` how far it is, ``cancel`` (any file of that name)
stops it. A service that the system killed goes on from ``run.npz`` when it is started again.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from hummingbird_runtime import (
    Cancelled,
    CancelToken,
    HummingbirdError,
    InputError,
    TextToVideoPipeline,
    Video,
    events,
)
from hummingbird_runtime.atomic import atomic_file
from hummingbird_runtime.capi import CapiBackend

POLL_SECONDS = 0.2
"""How often the service looks for ``cancel``."""
LARGEST_JOB = 2**16
"""Bytes of ``job.json``."""

Kinds = dict[str, type | tuple[type, ...]]
JOB: Kinds = {"prompt": str, "seed": int, "output": str}
OPTIONS: Kinds = {
    "num_frames": int, "height": int, "width": int, "num_inference_steps": int,
    "guidance_scale": (int, float), "decoder": str,
}  # fmt: skip
PIPELINE: Kinds = {"bundle": str, "threads": int, "style": str}


def read_job(path: Path) -> dict[str, Any]:
    """A checked ``job.json``: ``prompt``, ``seed``, ``output``, and any of the options.

    Raises:
        InputError: ``app.job`` when it is no such object.
    """
    try:
        with path.open("rb") as file:
            job = json.loads(file.read(LARGEST_JOB))
    except (OSError, ValueError, RecursionError) as error:
        raise _bad_job(f"a file that cannot be read ({type(error).__name__})") from error
    known = {**JOB, **OPTIONS, **PIPELINE}
    if not isinstance(job, dict) or not JOB.keys() <= job.keys() or job.keys() - known.keys():
        raise _bad_job(f"{str(job)[:120]!r}")
    for key, value in job.items():
        if isinstance(value, bool) or not isinstance(value, known[key]):
            raise _bad_job(f"{key} {str(value)[:80]!r}")
    if Path(job["output"]).name != job["output"]:
        raise _bad_job(f"output {job['output'][:80]!r} outside the folder")
    return job


def run_job(folder: Path) -> None:
    """Draw what ``job.json`` asks for and write the clip beside it; every end is in ``state.json``.

    Args:
        folder: app-private, with ``job.json``.
    """
    state, token, over = folder / "state.json", CancelToken(), threading.Event()
    watcher = threading.Thread(target=_watch, args=(folder / "cancel", token, over))
    watcher.start()
    try:
        job = read_job(folder / "job.json")
        _write(state, state="running", step=0)
        video = _draw(job, folder, state, token)
        _write(state, state="done", output=job["output"], seconds=video.timings["total"])
    except Cancelled:
        _write(state, state="cancelled")
    except HummingbirdError as error:
        _write(state, state="failed", code=error.code, message=error.message, hint=error.hint)
    finally:
        over.set()
        watcher.join()


def _draw(job: dict[str, Any], folder: Path, state: Path, token: CancelToken) -> Video:
    options: Any = {key: job[key] for key in OPTIONS if key in job}
    with TextToVideoPipeline.from_pretrained(
        job.get("bundle"),
        style=job.get("style"),
        threads=job.get("threads"),
        backend=CapiBackend(),
        low_memory=True,
    ) as pipe:
        run = pipe.stream(
            job["prompt"],
            seed=job["seed"],
            checkpoint=folder / "run.npz",
            cancel=token,
            **options,
        )
        video = None
        for event in run:  # to its end: the saved run goes when the clip is on disk
            if isinstance(event, events.Step):
                _write(state, state="running", step=event.i + 1, steps=event.n)
            elif isinstance(event, events.Done) and isinstance(event.video, Video):
                video = event.video
                video.save(folder / job["output"])
    assert video is not None, "a run for a video ends with one, or raises"
    return video


def _watch(flag: Path, token: CancelToken, over: threading.Event) -> None:
    while not over.wait(POLL_SECONDS):
        if flag.exists():
            token.cancel()
            return


def _write(path: Path, **values: object) -> None:
    with atomic_file(path, overwrite=True) as partial:
        partial.write_text(json.dumps(values), encoding="utf-8")


def _bad_job(got: str) -> InputError:
    expected = f"an object with {', '.join(JOB)} and any of {', '.join((*OPTIONS, *PIPELINE))}"
    return InputError("app.job", f"job.json, got {got}, expected {expected}", hint="write it anew")


if __name__ == "__main__":
    # python-for-android hands over what the app gave to Service.start; a desktop, an argument
    run_job(Path(os.environ.get("PYTHON_SERVICE_ARGUMENT") or sys.argv[1]))
