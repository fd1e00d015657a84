"""A curation engine without processes: for tests of what happens before and after the measuring."""

from __future__ import annotations

import contextlib
import io

from hummingbird_train.curation.scoring import load_stages, measure


def score(tasks, config, processes, token):
    """As the local engine, in this process; a clip that crashes takes the test with it."""
    stages = {stage.name: stage for stage in load_stages(config.builder, config.stages)}
    for task in tasks:
        token.raise_if_cancelled()
        with contextlib.redirect_stdout(io.StringIO()):
            outcomes = list(measure(task, stages, ignore_skips=config.ignore_skips))
        yield task, outcomes
