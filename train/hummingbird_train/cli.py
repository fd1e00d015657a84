"""The `hummingbird train` verbs. torch is imported by the verbs, not by --help."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

RECIPE = Path("train/recipes/shapes.toml")
CHECKPOINT = Path("train/checkpoints/shapes-v1")


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
    _add_publish(verbs)
    _add_ladder(verbs)
    return parser


def _add_publish(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "write a finished run as float16 checkpoints that `hummingbird export build` takes"
    verb = verbs.add_parser("publish", help=text, description=text)
    verb.add_argument("--run", type=Path, default=Path("runs/shapes"), metavar="DIR")
    verb.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    verb.add_argument("--steps", type=int, default=8, help="default inference steps (%(default)s)")
    verb.add_argument("--guidance-scale", type=float, default=3.0, help="default (%(default)s)")
    verb.add_argument("--recipe", default=RECIPE.as_posix(), help="named in the provenance")
    verb.add_argument("--licence-file", type=Path, default=Path("LICENSE"), metavar="FILE")
    verb.add_argument("--force", action="store_true", help="replace an existing folder")


def _add_ladder(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "judge rendered clips, the autoencoder and a bundle on fresh prompts; prints Markdown"
    verb = verbs.add_parser("ladder", help=text, description=text)
    verb.add_argument("--bundle", type=Path, metavar="DIR", help="default: the built-in bundle")
    verb.add_argument("--vae", type=Path, default=CHECKPOINT / "vae.safetensors", metavar="FILE")
    verb.add_argument("--prompts", type=int, default=200, help="fresh prompts (%(default)s)")
    verb.add_argument("--seeds", type=int, default=2, help="clips per prompt (%(default)s)")
    verb.add_argument("--steps", type=int, help="inference steps (default: the bundle's)")
    verb.add_argument("--tier", type=int, choices=(1, 2), default=1)
    verb.add_argument("--held-out", action="store_true", help="only triples never trained on")


def main(argv: list[str]) -> int:
    """Run a verb; returns the exit code. Typed errors pass through to the shell."""
    arguments = build_parser().parse_args(argv)
    return {"publish": _publish, "ladder": _ladder}.get(arguments.verb, _train)(arguments)


def _train(arguments: argparse.Namespace) -> int:
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


def _publish(arguments: argparse.Namespace) -> int:
    from hummingbird_train.publish import publish

    publish(
        arguments.run,
        arguments.output,
        recipe=arguments.recipe,
        licence=arguments.licence_file,
        steps=arguments.steps,
        w=arguments.guidance_scale,
        overwrite=arguments.force,
    )
    print(arguments.output)
    return 0


def _ladder(arguments: argparse.Namespace) -> int:
    from hummingbird_train.ladder import climb
    from hummingbird_train.world.accuracy import markdown

    rows = dict(
        climb(
            prompts=arguments.prompts,
            seeds=arguments.seeds,
            tier=arguments.tier,
            split="held_out" if arguments.held_out else "train",
            vae=arguments.vae,
            bundle=arguments.bundle,
            steps=arguments.steps,
            log=lambda line: print(line, file=sys.stderr, flush=True),
        )
    )
    print(markdown(rows, arguments.tier))
    return 0
