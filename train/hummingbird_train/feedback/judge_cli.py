"""`hummingbird train judge`: train a learned judge of the tiny world, or measure one."""

from __future__ import annotations

import sys
from pathlib import Path

from hummingbird_runtime.cli.parser import Parser, number_in, positive_number

SUMMARY = "train a learned judge of the tiny world (A: reward, B: held out), print its accuracy"
RUN = Path("runs/shapes/judges")


def main(argv: list[str]) -> int:
    """Train or go on with one judge, then measure it on fresh clips; returns the exit code."""
    parser = Parser(prog="hummingbird train judge", description=SUMMARY)
    add = parser.add_argument
    add("which", choices=("a", "b"), help="a: frames then time; b: volumes, another seed")
    add("--run", type=Path, default=RUN, metavar="DIR",
        help="folder of the judges, outside git (default %(default)s)")  # fmt: skip
    add("--steps", type=number_in(1, 10_000_000), default=3000, help="default %(default)s")
    add("--batch", type=number_in(1, 4096), default=32, help="clips a step (%(default)s)")
    add("--learning-rate", type=positive_number, default=3e-3, metavar="RATE")
    add("--minutes", type=positive_number, metavar="M", help="pause after M minutes")
    add("--clips", type=number_in(1, 100_000), default=400,
        help="fresh clips to measure on (%(default)s)")  # fmt: skip
    add("-q", "--quiet", action="store_true", help="no progress lines")
    parsed = parser.parse(argv)

    import numpy as np

    from hummingbird_train.feedback.judge import JudgeConfig, load_judge
    from hummingbird_train.feedback.judge_training import (
        JudgeObjective,
        JudgeTraining,
        accuracy,
        rendered,
    )
    from hummingbird_train.feedback.prompt_labels import CLASSES
    from hummingbird_train.loop import RunConfig, train
    from hummingbird_train.recipe import Phase
    from hummingbird_train.world.scene import sample_scene

    seed = {"a": 11, "b": 23}[parsed.which]
    config = JudgeConfig.a() if parsed.which == "a" else JudgeConfig.b()
    folder = parsed.run / parsed.which
    folder.mkdir(parents=True, exist_ok=True)
    phase = Phase(
        name=f"judge-{parsed.which}",
        steps=parsed.steps,
        batch=parsed.batch,
        learning_rate=parsed.learning_rate,
        flat=0.4,
    )
    finished = train(
        JudgeObjective(config, JudgeTraining(), seed=seed),
        [phase],
        folder,
        config=RunConfig(seed=seed, ema_decay=0.99),
        minutes=parsed.minutes,
        log=lambda line: None if parsed.quiet else print(line, file=sys.stderr, flush=True),
    )
    judge = load_judge(folder / "judge.safetensors")
    state = "finished" if finished else "paused; run again to go on"
    print(f"judge {parsed.which}: {state}, {folder / 'judge.safetensors'}\n")
    print(f"| fresh clips | n | {' | '.join(CLASSES)} |")
    print("|---" * (len(CLASSES) + 2) + "|")
    for tier in (1, 2):
        rng = np.random.default_rng([0x6A75, tier])
        scenes = [sample_scene(rng, tier=tier) for _ in range(parsed.clips)]
        frames = rendered(scenes, config.frames, 3, rng)
        shares = accuracy(judge, frames, scenes)
        cells = " | ".join(f"{share:.3f}" for share in shares.values())
        print(f"| tier {tier} | {parsed.clips} | {cells} |")
    return 0
