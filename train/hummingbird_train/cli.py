"""The `hummingbird train` verbs. torch is imported by the verbs, not by --help."""

from __future__ import annotations

import argparse
from pathlib import Path

RECIPE = Path("train/recipes/shapes.toml")


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of `hummingbird train`."""
    parser = argparse.ArgumentParser(
        prog="hummingbird train",
        description="Train the tiny world's models. Stages run in the order vae, base, guidance, "
        "decoder; each pauses when its minutes are gone and goes on where it paused.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="STAGE")
    described = {
        "vae": "train the autoencoder on rendered frames",
        "base": "train text tower and video U-Net: single frames, then 9 frames, then 26",
        "guidance": "distil classifier-free guidance into the w embedding",
        "decoder": "train the autoencoder's decoder further; latents stay as they are",
    }
    for stage, text in described.items():
        verb = verbs.add_parser(stage, help=text, description=text)
        verb.add_argument("recipe", nargs="?", type=Path, default=RECIPE, metavar="RECIPE.toml")
        verb.add_argument("--run", type=Path, default=Path("runs/shapes"), metavar="DIR",
                          help="run folder, outside git (default %(default)s)")  # fmt: skip
        verb.add_argument("--minutes", type=float, metavar="M", help="pause after M minutes")
        verb.add_argument("--processes", type=int, default=2, metavar="N",
                          help="gloo ranks, one thread each (default %(default)s)")  # fmt: skip
        verb.add_argument("-q", "--quiet", action="store_true", help="no progress lines")
    return parser


def main(argv: list[str]) -> int:
    """Run a verb; returns the exit code. Typed errors pass through to the shell."""
    arguments = build_parser().parse_args(argv)
    from hummingbird_train.parallel import launch
    from hummingbird_train.stages import run_stage

    launch(
        run_stage,
        arguments.processes,
        arguments.verb,
        arguments.recipe,
        arguments.run,
        arguments.minutes,
        arguments.quiet,
    )
    return 0
