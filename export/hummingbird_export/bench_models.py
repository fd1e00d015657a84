"""Models that a speed-up is measured on: the published layouts at full and at tiny widths.

Weights are random: a benchmark's opponent costs the same whatever it draws. The tiny ones keep what
tells the published models apart (blocks per level, middle block, guidance, sampler), so that all
100 passes of VideoCrafter2's recipe run in seconds. A bundle of one is made by running the module.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hummingbird_export.random_models import (
    HUMMINGBIRD_FACTS,
    LCM,
    VIDEOCRAFTER2_DDIM,
    VIDEOCRAFTER2_FACTS,
    Preset,
    preset,
)
from hummingbird_runtime.errors import UsageError
from hummingbird_train.models.unet import UNetConfig

if TYPE_CHECKING:
    from hummingbird_runtime.manifest import Precision

MODELS = ("vc2", "09b", "07b", "tiny", "vc2-tiny", "07b-tiny")

TINY_WIDTHS: dict[str, Any] = {
    "model_channels": 64,
    "channel_mult": (1, 2),
    "attention_resolutions": (1, 2),
    "num_head_channels": 32,
    "init_attn_heads": 2,
    "context_dim": 96,
    "norm_num_groups": 8,
}
"""Of the tiny U-Nets: what ``UNetConfig.tiny`` has, without its embeddings of frames."""

TINY_SIDE = {"trained": 64, "default": 64, "allowed": [32, 256]}


def bench_preset(model: str) -> Preset:
    """Shapes, schedule, tokenizer and facts of one of ``MODELS``.

    Raises:
        UsageError: ``bench.model``.
    """
    if model not in MODELS:
        raise UsageError(
            "bench.model",
            f"model of an arm: got {model!r:.60}, expected one of {', '.join(MODELS)}",
            hint="correct the workload's model",
        )
    if not model.endswith("-tiny"):
        return preset(model)
    tiny, facts = preset("tiny"), {"height": TINY_SIDE, "width": TINY_SIDE, "decode_chunk": 1}
    if model == "vc2-tiny":
        return replace(
            tiny,
            unet=UNetConfig(**TINY_WIDTHS, num_res_blocks=2),
            scheduler=VIDEOCRAFTER2_DDIM,
            facts={**VIDEOCRAFTER2_FACTS, **facts},
        )
    return replace(
        tiny,
        unet=UNetConfig(**TINY_WIDTHS, num_res_blocks=1, middle_block=False, time_cond_proj_dim=64),
        scheduler=LCM,
        facts={**HUMMINGBIRD_FACTS, **facts},
    )


def write_bundle(out: Path, model: str, *, precision: Precision, target: str, seed: int) -> Path:
    """Export one of the models with random weights and both decoders.

    Args:
        out: the folder to make.
        model: one of ``MODELS``.
        precision: of the U-Net, with what fits it for the other graphs.
        target: kind of machine, see ``targets.TARGETS``.
        seed: of the weights, equal to an arm's ``weights_seed`` for equal weights.

    Raises:
        HummingbirdError: as ``package.export_bundle``; ``bench.model``.
    """
    from hummingbird_export.cli import RANDOM_LICENCE
    from hummingbird_export.facts import complete_facts
    from hummingbird_export.package import WeightsLicence, export_bundle
    from hummingbird_export.random_models import random_networks, random_tiny_decoder

    shapes = bench_preset(model)
    unet, vae, text_encoder = random_networks(shapes, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        return export_bundle(
            out,
            unet=unet,
            vae=vae,
            text_encoder=text_encoder,
            tokenizer_folder=shapes.write_tokenizer(Path(folder, "tokenizer")),
            scheduler=shapes.scheduler,
            facts=complete_facts(shapes.facts, unet=unet, vae=vae),
            target=target,
            precision=precision,
            tiny_decoder=random_tiny_decoder(shapes, seed=seed),
            name=f"random-{model}",
            licence=WeightsLicence("CC0-1.0", RANDOM_LICENCE),
            provenance={"weights": f"random, seed {seed}"},
        )


def main(argv: list[str]) -> int:
    """``python -m hummingbird_export.bench_models MODEL -o DIR``."""
    parser = argparse.ArgumentParser(prog="python -m hummingbird_export.bench_models")
    add = parser.add_argument
    add("model", choices=MODELS)
    add("-o", "--output", type=Path, required=True, metavar="DIR")
    add("--precision", default="fp32", help="of the U-Net (%(default)s)")
    add("--target", default="cpu", help="kind of machine (%(default)s)")
    add("--seed", type=int, default=0, help="of the weights (%(default)s)")
    parsed = parser.parse_args(argv)
    made = write_bundle(
        parsed.output,
        parsed.model,
        precision=parsed.precision,
        target=parsed.target,
        seed=parsed.seed,
    )
    print(made)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
