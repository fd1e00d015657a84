"""`hummingbird train ladder`: judged accuracy of a bundle, or of every stage that a file lists."""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hummingbird_runtime.atomic import atomic_file
from hummingbird_runtime.cli.parser import Parser, number_in, positive_number
from hummingbird_train.recipe import load_recipe, section

DESCRIPTION = (
    "Judge clips of fresh prompts, from rendered ones to a bundle's; prints Markdown. With a file "
    "of rungs: every model that it lists, at the same prompts and seeds."
)
VAE = Path("train/checkpoints/shapes-v1/vae.safetensors")


@dataclass(frozen=True)
class LadderConfig:
    """Keys of a file of rungs besides ``[[rungs]]``."""

    prompts: int = 200
    seeds: int = 2
    """Clips per prompt."""
    tier: int = 1
    held_out: bool = False
    """Only (shape, colour, motion) triples that were never trained on."""
    judge: str = ""
    """Weights of a learned judge, for the Frechet distance."""
    compare: tuple[Any, ...] = field(default=())
    """Pairs of names of rungs."""


def main(arguments: list[str]) -> int:
    """Run the verb.

    Raises:
        HummingbirdError: ``recipe.*``, ``ladder.*``, ``checkpoint.*``, ``bundle.*``.
    """
    parser = Parser(prog="hummingbird train ladder", description=DESCRIPTION)
    add = parser.add_argument
    add("rungs", nargs="?", type=Path, metavar="RUNGS.toml",
        help="models to judge (default: rendered clips, the autoencoder, one bundle)")  # fmt: skip
    add("-o", "--output", type=Path, metavar="PAGE.md",
        help="write tables and clips there; finished rungs stay in --keep")  # fmt: skip
    add("--keep", type=Path, default=Path("runs/ladder"), metavar="DIR",
        help="finished rungs of a file, outside git (default %(default)s)")  # fmt: skip
    add("--bundle", type=Path, metavar="DIR", help="default: the built-in bundle")
    add("--vae", type=Path, default=VAE, metavar="FILE")
    add("--prompts", type=number_in(1, 100_000), default=200, help="fresh prompts (%(default)s)")
    add("--seeds", type=number_in(1, 1000), default=2, help="clips per prompt (%(default)s)")
    add("--steps", type=number_in(1, 50), help="inference steps (default: the bundle's)")
    add("--guidance-scale", type=positive_number, help="default: the bundle's")
    add("--decoder", choices=("full", "tiny"), help="default: the bundle's")
    add("--tier", type=int, choices=(1, 2), default=1)
    add("--held-out", action="store_true", help="only triples never trained on")
    parsed = parser.parse(arguments)
    from hummingbird_train.feedback.judge import load_judge
    from hummingbird_train.ladder import Rung, climb
    from hummingbird_train.ladder_page import differences, pictures, tables

    if parsed.rungs is None:
        keep = None
        config = LadderConfig(parsed.prompts, parsed.seeds, parsed.tier, parsed.held_out)
        rungs = [
            Rung("rendered", "rendered"),
            Rung("autoencoder", "autoencoder", str(parsed.vae)),
            Rung(
                f"bundle {parsed.bundle or 'built in'}",
                "bundle",
                str(parsed.bundle or ""),
                steps=parsed.steps,
                guidance_scale=parsed.guidance_scale,
                decoder=parsed.decoder,
            ),
        ]
    else:
        keep = parsed.keep
        table = load_recipe(parsed.rungs)
        rungs = [section(Rung, row, "rungs") for row in table.pop("rungs", [])]
        config = section(LadderConfig, table, "")
    rows = {}
    for row in climb(
        rungs,
        prompts=config.prompts,
        seeds=config.seeds,
        tier=config.tier,
        split="held_out" if config.held_out else "train",
        reader=load_judge(Path(config.judge)) if config.judge else None,
        folder=keep,
        log=functools.partial(print, file=sys.stderr, flush=True),
    ):
        rows[row.name] = row
    text = tables(list(rows.values()), config.tier)
    if config.compare:
        text += "\n\n" + differences(rows, [(str(a), str(b)) for a, b in config.compare])
    print(text)
    if parsed.output is not None and keep is not None:
        images = parsed.output.parent / "images"
        images.mkdir(parents=True, exist_ok=True)
        clips = pictures(list(rows.values()), keep, images)
        with atomic_file(parsed.output, overwrite=True) as partial:
            partial.write_text("\n".join([*HEAD, text, "", "## Clips", "", *clips]), "utf-8")
    return 0


HEAD = [
    "# The ladder",
    "",
    "What each stage of training and each step of export keeps of the tiny world. Every rung",
    "answers the same fresh prompts with the same seeds; an exact judge reads pixels. Written by",
    "`hummingbird train ladder train/recipes/ladder.toml -o docs/ladder.md`.",
    "",
]
