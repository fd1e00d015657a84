"""``hummingbird export sensitivity``: what each layer of a U-Net would cost below float32."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from hummingbird_runtime.cli.parser import Parser, number_in
from hummingbird_runtime.errors import InputError


def sensitivity_main(arguments: list[str]) -> int:
    """Run the verb; see ``hummingbird export sensitivity --help``."""
    parser = Parser(
        prog="hummingbird export sensitivity",
        description="Sample clips with a float32 bundle, watch every layer of the U-Net and say "
        "how much noise it would add in int8 and with weights in 4 bits. Precision mixed is chosen "
        "from these figures. In decibels of noise against signal: the lower, the better.",
    )
    add = parser.add_argument
    add("bundle", type=Path, metavar="BUNDLE", help="folder of a bundle in fp32")
    add("-o", "--output", type=Path, metavar="FILE.json", help="every layer, as JSON")
    add(
        "--measured",
        action="store_true",
        help="quantize one group of layers at a time and run the network (minutes to hours); "
        "else figures at each layer's own output",
    )
    add("--prompts", type=number_in(1, 8), default=2, help="trajectories to watch, default 2")
    add("--top", type=number_in(1, 10_000), default=20, help="layers to print, default 20")
    add("--force", action="store_true", help="replace an existing output")
    return _run(parser.parse(arguments))


def _run(parsed: argparse.Namespace) -> int:
    import onnx_ir as ir

    from hummingbird_export.compile import opened
    from hummingbird_export.networks import sampling_settings
    from hummingbird_export.quality import embed_prompts
    from hummingbird_export.quantize import calibrate
    from hummingbird_export.quantize.mixed import estimate_sensitivity, to_json
    from hummingbird_export.quantize.sensitivity import measure_sensitivity
    from hummingbird_export.trajectory import Case, trajectory
    from hummingbird_runtime.atomic import atomic_file
    from hummingbird_runtime.bundle import Bundle
    from hummingbird_runtime.output import check_target

    if parsed.output is not None:
        check_target(parsed.output, overwrite=parsed.force)
    bundle = Bundle.open(parsed.bundle)
    entry = bundle.graph("unet")
    if entry.precision != "fp32":
        raise InputError(
            "export.sensitivity",
            f"bundle {bundle.manifest.name}: got a U-Net in {entry.precision}, expected fp32",
            hint="export the model with --precision fp32 first",
        )
    contexts = embed_prompts(bundle, parsed.prompts)
    settings = sampling_settings(
        bundle.manifest.model,
        bundle.scheduler,
        negative=embed_prompts(bundle, 1, texts=("",))[0],
    )
    path = bundle.path("unet")
    feeds = []
    with opened(path, entry.session) as run:
        for seed, context in enumerate(contexts):
            print(f"sampling clip {seed + 1} of {len(contexts)}", file=sys.stderr)
            feeds += trajectory(run, Case(context, seed), settings).feeds
    print("watching layers", file=sys.stderr)
    ranges = calibrate(path, feeds)
    if parsed.measured:
        found = measure_sensitivity(path, feeds[::2], ranges)
    else:
        found = estimate_sensitivity(ir.load(path), ranges)
    table = to_json(found)
    if parsed.output is not None:
        with atomic_file(parsed.output, overwrite=parsed.force) as temporary:
            temporary.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    print(f"{'layer':64}{'weights':>11}{'int8 dB':>9}{'4-bit dB':>10}")
    for name, one in list(table.items())[: parsed.top]:
        print(f"{name:64}{one['weights']:>11}{one['int8']:>9}{one['int4']:>10}")
    return 0
