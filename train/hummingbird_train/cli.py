"""The `hummingbird train` verbs. torch is imported by the verbs, not by --help."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from hummingbird_runtime.cli.parser import Parser, number_in, positive_number
from hummingbird_runtime.errors import UsageError

RECIPE = Path("train/recipes/shapes.toml")
CHECKPOINT = Path("train/checkpoints/shapes-v1")
RUN = Path("runs/shapes")

STAGES = {
    "vae": "train the autoencoder on rendered frames",
    "base": "train text tower and video U-Net: single frames, then 9 frames, then 26",
    "guidance": "distil classifier-free guidance into the w embedding",
    "decoder": "train the autoencoder's decoder further; latents stay as they are",
}
PUBLISH = "write a finished run as float16 checkpoints that `hummingbird export build` takes"
LADDER = "judge rendered clips, the autoencoder and a bundle on fresh prompts; prints Markdown"


def usage() -> str:
    """What `hummingbird train --help` prints."""
    described = {**STAGES, "publish": PUBLISH, "ladder": LADDER}
    lines = [f"  {verb:9}{text}" for verb, text in described.items()]
    return "\n".join(
        [
            "usage: hummingbird train VERB [options]     (hummingbird train VERB --help)",
            "",
            "Stages run in the order listed; each pauses when its minutes are gone and goes on",
            "where it paused.",
            "",
            "verbs:",
            *lines,
        ]
    )


def main(argv: list[str]) -> int:
    """Run a training verb; returns the exit code. Typed errors pass through to the shell."""
    verbs: dict[str, Callable[[list[str]], int]] = {"publish": _publish, "ladder": _ladder}
    if argv and argv[0] in ("-h", "--help"):
        print(usage())
        return 0
    if argv and argv[0] in STAGES:
        return _stage(argv[0], argv[1:])
    if not argv or argv[0] not in verbs:
        got = repr(argv[0][:60]) if argv else "no verb"
        raise UsageError(
            "usage.unknown_verb",
            f"hummingbird train: got {got}, expected one of {', '.join([*STAGES, *verbs])}",
            hint="see `hummingbird train --help`",
        )
    return verbs[argv[0]](argv[1:])


def _stage(stage: str, arguments: list[str]) -> int:
    parser = Parser(prog=f"hummingbird train {stage}", description=STAGES[stage])
    add = parser.add_argument
    add("recipe", nargs="?", type=Path, default=RECIPE, metavar="RECIPE.toml")
    add("--run", type=Path, default=RUN, metavar="DIR",
        help="run folder, outside git (default %(default)s)")  # fmt: skip
    add("--minutes", type=positive_number, metavar="M", help="pause after M minutes")
    add("--processes", type=number_in(1, 64), default=2, metavar="N",
        help="gloo ranks, one per core (default %(default)s)")  # fmt: skip
    add("-q", "--quiet", action="store_true", help="no progress lines")
    parsed = parser.parse(arguments)
    from hummingbird_train.parallel import launch
    from hummingbird_train.recipe import load_recipe
    from hummingbird_train.stages import run_stage

    load_recipe(parsed.recipe)  # a wrong path fails here, before processes are made
    launch(
        run_stage, parsed.processes, stage, parsed.recipe, parsed.run, parsed.minutes, parsed.quiet
    )
    return 0


def _publish(arguments: list[str]) -> int:
    parser = Parser(prog="hummingbird train publish", description=PUBLISH)
    add = parser.add_argument
    add("--run", type=Path, default=RUN, metavar="DIR", help="default %(default)s")
    add("-o", "--output", type=Path, required=True, metavar="DIR",
        help="new folder; its name becomes the model's")  # fmt: skip
    add("--steps", type=number_in(1, 50), default=8, help="default inference steps (%(default)s)")
    add("--guidance-scale", type=positive_number, default=3.0, help="default scale (%(default)s)")
    add("--recipe", default=RECIPE.as_posix(), help="named in the provenance (%(default)s)")
    add("--licence-file", type=Path, default=Path("LICENSE"), metavar="FILE")
    add("--force", action="store_true", help="replace an existing folder")
    parsed = parser.parse(arguments)
    from hummingbird_train.publish import publish

    publish(
        parsed.run,
        parsed.output,
        recipe=parsed.recipe,
        licence=parsed.licence_file,
        steps=parsed.steps,
        w=parsed.guidance_scale,
        overwrite=parsed.force,
    )
    print(parsed.output)
    return 0


def _ladder(arguments: list[str]) -> int:
    parser = Parser(prog="hummingbird train ladder", description=LADDER)
    add = parser.add_argument
    add("--bundle", type=Path, metavar="DIR", help="default: the built-in bundle")
    add("--vae", type=Path, default=CHECKPOINT / "vae.safetensors", metavar="FILE")
    add("--prompts", type=number_in(1, 100_000), default=200, help="fresh prompts (%(default)s)")
    add("--seeds", type=number_in(1, 1000), default=2, help="clips per prompt (%(default)s)")
    add("--steps", type=number_in(1, 50), help="inference steps (default: the bundle's)")
    add("--guidance-scale", type=positive_number, help="default: the bundle's")
    add("--tier", type=int, choices=(1, 2), default=1)
    add("--held-out", action="store_true", help="only triples never trained on")
    parsed = parser.parse(arguments)
    from hummingbird_train.ladder import climb
    from hummingbird_train.world.accuracy import markdown

    rows = dict(
        climb(
            prompts=parsed.prompts,
            seeds=parsed.seeds,
            tier=parsed.tier,
            split="held_out" if parsed.held_out else "train",
            vae=parsed.vae,
            bundle=parsed.bundle,
            steps=parsed.steps,
            w=parsed.guidance_scale,
            log=lambda line: print(line, file=sys.stderr, flush=True),
        )
    )
    print(markdown(rows, parsed.tier))
    return 0
