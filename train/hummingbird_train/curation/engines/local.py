"""The default engine: threads that each drive one ``Worker``, results as they come."""

from __future__ import annotations

import queue
from collections.abc import Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice

from hummingbird_runtime.cancel import CancelToken
from hummingbird_train.curation.scoring import Task
from hummingbird_train.curation.stage import Outcome
from hummingbird_train.curation.worker import Worker, WorkerConfig

_POLL_S = 0.1
_AHEAD = 2  # tasks a worker has waiting


def score(
    tasks: Iterable[Task], config: WorkerConfig, processes: int, token: CancelToken
) -> Generator[tuple[Task, list[Outcome]], None, None]:
    """Measure clips in this machine's processes.

    Args:
        tasks: taken as they are needed, never all at once.
        config: of every worker.
        processes: clips measured at the same time.
        token: stops the engine; clips under way are given up.

    Yields:
        Each task with its outcomes, in the order in which they are done.

    Raises:
        Cancelled: the token was cancelled.
        HummingbirdError: no clip can be measured here.
    """
    workers = [Worker(config) for _ in range(processes)]
    idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def run(task: Task) -> tuple[Task, list[Outcome]]:
        worker = idle.get()
        try:
            return task, worker.score(task)
        finally:
            idle.put(worker)

    source = iter(tasks)
    pending: set[Future[tuple[Task, list[Outcome]]]] = set()
    pool = ThreadPoolExecutor(processes, thread_name_prefix="hummingbird-curate")
    try:
        while True:
            for task in islice(source, processes * _AHEAD - len(pending)):
                pending.add(pool.submit(run, task))
            if not pending:
                return
            done, pending = wait(pending, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
            token.raise_if_cancelled()
    finally:
        for worker in workers:
            worker.kill()
        pool.shutdown(wait=True, cancel_futures=True)
        for worker in workers:
            worker.close()
