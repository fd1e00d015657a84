"""A graph run in a process of its own: a large graph's memory never adds to the exporter's.

The child holds nothing but NumPy and the runtime's own session on the file, opened with the
settings that the bundle will carry, so what is checked is what will run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.errors import ExecutionError, HummingbirdError, ResourceError
from hummingbird_runtime.session import OnnxRuntimeBackend, SessionOptions
from hummingbird_runtime.session_settings import SessionSettings

Feeds = dict[str, NDArray[Any]]


class GraphProcess:
    """A context manager around the child; call it with feeds, get the graph's first output.

    Args:
        path: ``model.onnx``, its external data beside it.
        settings: of the session.
        threads: of a run; None is ONNX Runtime's own choice.
    """

    def __init__(
        self, path: Path, settings: SessionSettings | None = None, *, threads: int | None = None
    ) -> None:
        self._path = path
        self._settings = settings or SessionSettings()
        self._threads = threads

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="hummingbird-")
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "hummingbird_export.graph_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
            )
        except OSError as error:
            self._folder.cleanup()
            raise ResourceError(
                "export.process",
                f"the process of graph {self._path.parent.name} could not be started: {error}",
                hint="free memory or raise the limit on processes",
            ) from error
        try:
            self._ask(
                {
                    "path": str(self._path),
                    "settings": dataclasses.asdict(self._settings),
                    "threads": self._threads,
                }
            )
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def __call__(self, feeds: Feeds) -> NDArray[np.float32]:
        """Run the graph.

        Raises:
            ExecutionError: ``export.verify`` when it fails or its process ends.
        """
        source, target = (Path(self._folder.name, name) for name in ("in.npz", "out.npy"))
        np.savez(source, allow_pickle=False, **feeds)
        self._ask({"feeds": str(source), "output": str(target)})
        output: NDArray[np.float32] = np.load(target, allow_pickle=False)
        return output

    def peak_memory(self) -> int | None:
        """Most bytes that the child ever held, None where the system does not tell."""
        peak: int | None = self._ask({"peak": True})["peak"]
        return peak

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        child = self._child
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(json.dumps(question) + "\n")
            child.stdin.flush()
            line = child.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise self._broken(f"its process ended with status {child.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise self._broken(answer["error"])
        return answer

    def _broken(self, problem: str) -> ExecutionError:
        return ExecutionError(
            "export.verify",
            f"graph {self._path.parent.name}: {problem}",
            hint="the file is damaged, uses what this ONNX Runtime lacks, or needs more memory",
        )

    def _stop(self) -> None:
        child = self._child
        assert child.stdin is not None
        assert child.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
        child.kill()  # it holds nothing that needs saving
        child.wait()
        child.stdout.close()
        self._folder.cleanup()


def _answer(question: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    if "path" in question:
        settings = question["settings"]
        settings["disabled_optimizers"] = tuple(settings["disabled_optimizers"])
        options = SessionOptions(settings=SessionSettings(**settings), threads=question["threads"])
        state["session"] = OnnxRuntimeBackend().open(Path(question["path"]), options)
        return {}
    if "feeds" in question:
        with np.load(question["feeds"], allow_pickle=False) as stored:
            outputs = state["session"].run(dict(stored))
        np.save(question["output"], next(iter(outputs.values())), allow_pickle=False)
        return {}
    from hummingbird_runtime.deep_check import peak_memory

    return {"peak": peak_memory()}


def _serve() -> None:
    """Answer each line, an object of a question, with a line."""
    state: dict[str, Any] = {}
    for line in sys.stdin:
        try:
            answer = _answer(json.loads(line), state)
        except HummingbirdError as error:
            answer = {"error": error.message}
        except Exception as error:  # the parent raises it under its own type
            answer = {"error": (str(error).splitlines() or [type(error).__name__])[0][:300]}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
