"""A process that scores a source with fake stages: what the fault tests kill.

python curation_runner.py ENGINE SOURCE RUN PROCESSES DELAY
"""

from __future__ import annotations

import sys
from pathlib import Path

from hummingbird_runtime.cli import as_typed, report
from hummingbird_train.curation.config import CurationConfig
from hummingbird_train.curation.run import ScoreOptions, score


def main() -> int:
    engine, source, run, processes, delay = sys.argv[1:]
    if engine == "ray":
        from hummingbird_train.curation.engines import ray_data as module
    else:
        from hummingbird_train.curation.engines import local as module
    stages = {"first": {}, "second": {"delay": float(delay)}, "third": {}}
    try:
        score(
            Path(source),
            Path(run),
            CurationConfig(stages, {}, "fake_stages:build", ""),
            ScoreOptions(processes=int(processes), seconds=20.0, flush_seconds=0.03),
            engine=module.score,
            watch=lambda tally: print(tally.ready, flush=True),
        )
    except Exception as error:
        return report(as_typed(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
