"""The ``hummingbird export`` verbs. torch and onnx are imported by the verbs, not by ``--help``."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hummingbird_runtime.cli.nested import NestedVerbs
from hummingbird_runtime.cli.parser import Parser, number_in
from hummingbird_runtime.errors import UsageError

if TYPE_CHECKING:
    from hummingbird_export.facts import FixedSizes

PRECISIONS = ("fp32", "fp16-storage", "int8", "int8-dynamic", "mixed", "w8", "w4")
PRESETS = ("tiny", "07b", "09b", "vc2")
LARGEST_SEED = (1 << 60) - 1

RANDOM_LICENCE = """\
These weights are pseudo-random numbers. They are dedicated to the public domain under CC0 1.0
Universal, https://creativecommons.org/publicdomain/zero/1.0/
"""

VERBS = NestedVerbs(
    "export",
    {
        "build": (
            "hummingbird_export.cli:build_main",
            "checkpoints to a bundle: written, simplified, quantized, verified, packed",
        ),
        "random": (
            "hummingbird_export.cli:random_main",
            "a bundle of random weights, to try the whole path without a checkpoint",
        ),
        "coverage": (
            "hummingbird_export.coverage:coverage_main",
            "which operators of a bundle each execution provider would leave to the CPU",
        ),
        "sensitivity": (
            "hummingbird_export.sensitivity_cli:sensitivity_main",
            "how much each layer of a U-Net suffers from lower precision",
        ),
    },
)
main = VERBS.run


def build_main(arguments: list[str]) -> int:
    """`hummingbird export build`."""
    parser = Parser(
        prog="hummingbird export build",
        description="Export checkpoints to a bundle. A recipe (TOML) may hold everything that the "
        "flags give: unet, vae, text, tokenizer, name, precision, licence = {name, file} and the "
        "tables scheduler, facts, provenance; paths in it are relative to it. Flags win.",
    )
    add = parser.add_argument
    add("recipe", nargs="?", type=Path, metavar="RECIPE.toml")
    add("--unet", type=Path, metavar="FILE", help="U-Net, safetensors")
    add("--vae", type=Path, metavar="FILE", help="autoencoder, safetensors")
    add("--text", type=Path, metavar="FILE", help="text encoder, safetensors")
    add("--tokenizer", type=Path, metavar="DIR", help="vocab.json, merges.txt, config")
    add("--scheduler", type=Path, metavar="FILE", help="scheduler_config.json")
    add("--facts", type=Path, metavar="FILE", help="model facts, JSON or TOML")
    add("--licence", metavar="NAME", help="licence of the weights, for example Apache-2.0")
    add("--licence-file", type=Path, metavar="FILE", help="its text")
    add("--name", help="name of the model, default: the output folder's")
    add("--tiny-decoder", type=Path, metavar="FILE", help="small decoder, safetensors, to add")
    add("--upscaler", type=Path, metavar="FILE", help="upscaler of frames, safetensors, to add")
    _add_common(parser)
    parsed = parser.parse(arguments)

    from hummingbird_export.build import BuildPlan, build, read_recipe, read_table

    plan = BuildPlan() if parsed.recipe is None else read_recipe(parsed.recipe)
    plan = plan.override(
        unet=parsed.unet,
        vae=parsed.vae,
        text=parsed.text,
        tokenizer=parsed.tokenizer,
        scheduler=None if parsed.scheduler is None else read_table(parsed.scheduler),
        facts=None if parsed.facts is None else read_table(parsed.facts),
        licence_name=parsed.licence,
        licence_file=parsed.licence_file,
        name=parsed.name,
        precision=parsed.precision,
        precisions=None if parsed.precision is None else {},  # the recipe's fit the recipe's
        target=parsed.target,
        tiny_decoder=parsed.tiny_decoder,
        upscaler=parsed.upscaler,
    )
    return _timed(
        lambda note: build(
            parsed.output,
            plan,
            overwrite=parsed.force,
            sizes=_sizes(parsed),
            vae_encoder=parsed.vae_encoder,
            force_quality=parsed.force_quality,
            note=note,
        )
    )


def random_main(arguments: list[str]) -> int:
    """`hummingbird export random`."""
    parser = Parser(
        prog="hummingbird export random",
        description="Make a bundle of random weights. It draws noise, through every stage.",
    )
    add = parser.add_argument
    add(
        "--config",
        choices=PRESETS,
        default="tiny",
        help="shapes: tiny (default), Hummingbird 0.7B and 0.9B, VideoCrafter2",
    )
    add("--hard", action="store_true", help="weights with outliers, which quantize like real ones")
    add("--seed", type=number_in(0, LARGEST_SEED), default=0, help="of the weights, default 0")
    _add_common(parser)
    parsed = parser.parse(arguments)

    from hummingbird_export.facts import complete_facts
    from hummingbird_export.package import WeightsLicence, export_bundle
    from hummingbird_export.random_models import preset, random_networks, random_tiny_decoder

    def make(note: Callable[[str], None]) -> Path:
        shapes = preset(parsed.config)
        note("drawing weights")
        unet, vae, text_encoder = random_networks(shapes, seed=parsed.seed, hard=parsed.hard)
        with tempfile.TemporaryDirectory() as folder:
            return export_bundle(
                parsed.output,
                unet=unet,
                vae=vae,
                text_encoder=text_encoder,
                tokenizer_folder=shapes.write_tokenizer(Path(folder, "tokenizer")),
                scheduler=shapes.scheduler,
                facts=complete_facts(shapes.facts, unet=unet, vae=vae),
                target=parsed.target or "portable",
                precision=parsed.precision,
                sizes=_sizes(parsed),
                tiny_decoder=random_tiny_decoder(shapes, seed=parsed.seed),
                vae_encoder=parsed.vae_encoder,
                force_quality=parsed.force_quality,
                note=note,
                name=f"random-{parsed.config}{'-hard' if parsed.hard else ''}",
                licence=WeightsLicence("CC0-1.0", RANDOM_LICENCE),
                provenance={
                    "weights": f"random{', hard' if parsed.hard else ''}, seed {parsed.seed}"
                },
                overwrite=parsed.force,
            )

    return _timed(make)


def _add_common(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-o", "--output", type=Path, required=True, metavar="DIR", help="bundle folder to make")
    add("--target", metavar="NAME", help="kind of machine, default portable; see docs/targets.md")
    add("--precision", choices=PRECISIONS, help="of the U-Net, default: the target's own")
    sizes = "fix the size (default: free, or where a target must have it fixed the model's)"
    add("--num-frames", type=number_in(1, 104), metavar="F", help=f"frames; {sizes}")
    add("--height", type=number_in(8, 4096), metavar="H", help="height in pixels; the same")
    add("--width", type=number_in(8, 4096), metavar="W", help="width in pixels; the same")
    add("--vae-encoder", action="store_true", help="also export the encoder")
    add(
        "--force-quality",
        action="store_true",
        help="write the bundle even if the quantized U-Net misses its quality gate",
    )
    add("--force", action="store_true", help="replace an existing folder")


def _sizes(parsed: argparse.Namespace) -> FixedSizes | None:
    """The clip size asked for; all three or none."""
    from hummingbird_export.facts import FixedSizes

    given = (parsed.num_frames, parsed.height, parsed.width)
    if given == (None, None, None):
        return None
    if None in given:
        raise UsageError(
            "usage.arguments",
            "export: got some of --num-frames, --height and --width, expected all or none",
            hint="give the size of the clips, for example --num-frames 26 --height 320 --width 512",
        )
    return FixedSizes(*given)


def _timed(make: Callable[[Callable[[str], None]], Path]) -> int:
    start = time.perf_counter()

    def note(text: str) -> None:
        print(f"{time.perf_counter() - start:7.1f} s  {text}", file=sys.stderr, flush=True)

    path = make(note)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    note(f"done, {size} bytes")
    print(path)
    return 0
