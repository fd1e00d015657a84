"""Ray Data engine: the same measuring in actors of a cluster, the same rows in the same ledger.

Rows of tasks (ids and paths, never frames) go out, outcomes come back to the one process that
writes the ledger. Every actor keeps a ``Worker``, so a poisonous clip costs its own process and not
the actor; Ray runs the tasks of a killed actor again. The files must be readable on every node.
"""

from __future__ import annotations

import json
import os
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from typing import Any

from hummingbird_runtime.cancel import CancelToken
from hummingbird_runtime.cli.verbs import missing_extra
from hummingbird_runtime.errors import Cancelled, ExecutionError, HummingbirdError
from hummingbird_train.curation.arrow import pyarrow
from hummingbird_train.curation.scoring import Task
from hummingbird_train.curation.stage import Outcome
from hummingbird_train.curation.worker import Worker, WorkerConfig, typed_error, typed_message

_BATCH = 8  # clips of one call of an actor
_BLOCK = 32  # clips of one block: what a killed actor makes Ray run again
_WINDOW = 200_000  # clips handed to Ray at a time
_POLL_S = 0.2
_ALONE = {"include_dashboard": False, "object_store_memory": 256 << 20}  # rows are small


class ScoringActor:
    """What Ray runs: one batch of tasks in, one JSON line a clip out."""

    def __init__(self, config: str) -> None:
        table = json.loads(config)
        self._worker = Worker(WorkerConfig(**{**table, "path": tuple(table["path"])}))

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Measure the clips of a batch."""
        return {"result": [self._line(text) for text in batch["task"]]}

    def _line(self, text: str) -> str:
        try:
            outcomes = self._worker.score(Task.from_json(text))
        except HummingbirdError as error:
            return json.dumps(typed_message(error))
        return json.dumps({"task": text, "outcomes": [asdict(outcome) for outcome in outcomes]})


def score(
    tasks: Iterable[Task],
    config: WorkerConfig,
    processes: int,
    token: CancelToken,
    *,
    address: str | None = None,
) -> Generator[tuple[Task, list[Outcome]], None, None]:
    """Measure clips on a Ray cluster; arguments and errors are those of the local engine.

    Args:
        tasks: what to measure.
        config: of every worker.
        processes: most actors at a time, one processor each.
        token: stops the engine.
        address: of a running cluster; None uses the one this process has joined, or starts one on
            this machine.

    Raises:
        ResourceError: ``extra.missing`` without the package ray.
        ExecutionError: ``curation.ray`` when Ray itself failed.
    """
    ray = _ray()
    ours = not ray.is_initialized()
    if ours:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported home
        alone = {} if address else _ALONE | {"num_cpus": processes}
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **alone)
    source, seen = iter(tasks), set[str]()
    try:
        while window := list(islice(source, _WINDOW)):
            for line in _polled(lambda w=window: _results(ray, w, config, processes), token):
                message = json.loads(line)
                if "fatal" in message:
                    raise typed_error(message)
                task = Task.from_json(message["task"])
                if task.clip.id not in seen:  # blocks of a killed actor may come again
                    seen.add(task.clip.id)
                    yield task, [Outcome(**outcome) for outcome in message["outcomes"]]
    finally:
        if ours:
            ray.shutdown()


def _results(ray: Any, window: list[Task], config: WorkerConfig, processes: int) -> Iterator[str]:
    pa, _, _ = pyarrow()
    lines = [task.to_json() for task in window]
    blocks = [pa.table({"task": lines[i : i + _BLOCK]}) for i in range(0, len(lines), _BLOCK)]
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    results = ray.data.from_arrow(blocks).map_batches(
        ScoringActor,
        fn_constructor_args=(json.dumps(asdict(config)),),
        batch_size=_BATCH,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=processes),
        num_cpus=1,
    )
    for batch in results.iter_batches(batch_size=None, batch_format="pyarrow"):
        yield from batch.column("result").to_pylist()


def _polled(results: Callable[[], Iterator[str]], token: CancelToken) -> Iterator[str]:
    """Read results in a thread, so that a cancel need not wait for Ray's next block."""
    lines: queue.SimpleQueue[str | BaseException | None] = queue.SimpleQueue()

    def read() -> None:
        try:
            for line in results():
                lines.put(line)
            lines.put(None)
        except BaseException as error:
            lines.put(error)

    threading.Thread(target=read, name="hummingbird-ray", daemon=True).start()
    while True:
        token.raise_if_cancelled()
        try:
            line = lines.get(timeout=_POLL_S)
        except queue.Empty:
            continue
        if line is None:
            return
        if isinstance(line, Cancelled):
            raise line
        if isinstance(line, BaseException):
            text = (str(line).strip().splitlines() or [""])[-1]
            raise ExecutionError(
                "curation.ray",
                f"Ray failed: {type(line).__name__}: {text[:200]}",
                hint="what was measured is in the ledger; run the same command again",
            ) from line
        yield line


def _ray() -> Any:
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise missing_extra("hummingbird curate --engine ray", "ray", "ray") from error
    return ray
