"""``hummingbird convert``: published checkpoints to a folder for ``hummingbird export build``.

torch is imported by the work, not by ``--help``.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from hummingbird_runtime.cancel import CancelToken
from hummingbird_runtime.cli.parser import Parser, number
from hummingbird_runtime.cli.worker import run_cancellable
from hummingbird_runtime.errors import InputError, UsageError

DTYPES = ("fp32", "fp16")
VARIANTS = (
    "hummingbird-0.7b",
    "hummingbird-0.9b",
    "videocrafter2",
    "t2v-turbo",
    "hummingbird-0.9b-unguided",
    "hummingbird-0.7b-unguided",
)

DESCRIPTION = (
    "Convert a published checkpoint (safetensors, a state dict of torch.save, or a whole pickled "
    "module) to safetensors files and a recipe. Nothing in a pickle is ever run."
)


def main(arguments: list[str]) -> int:
    """Convert or inspect; see ``hummingbird convert --help``."""
    parsed = _parser().parse(arguments)
    if parsed.inspect == (parsed.output is not None):
        raise UsageError(
            "usage.arguments",
            f"hummingbird convert: got {'both' if parsed.inspect else 'neither'} -o and --inspect, "
            "expected one of them",
            hint="-o DIR converts, --inspect only shows what is in the files",
        )
    return run_cancellable(lambda token: _run(parsed, token))


def _parser() -> Parser:
    parser = Parser(prog="hummingbird convert", description=DESCRIPTION)
    add = parser.add_argument
    add("source", nargs="+", type=Path, metavar="SRC", help="files that hold one model together")
    add("-o", "--output", type=Path, metavar="DIR", help="folder to make")
    add("--inspect", action="store_true", help="show what the files hold and stop")
    add("--licence", metavar="NAME", help="licence of the weights, mandatory")
    add("--licence-file", type=Path, metavar="FILE", help="its text, mandatory")
    add("--dtype", choices=DTYPES, default="fp32", help="stored numbers, default fp32")
    add("--lora", type=Path, metavar="FILE", help="LoRA to merge into the U-Net")
    add("--lora-strength", type=number, default=1.0, metavar="S", help="its factor, default 1")
    add("--variant", choices=VARIANTS, help="refuse any other model")
    add("--name", help="name of the model, default: the variant's")
    add("--partial", action="store_true", help="write a model that lacks parts")
    add("--drop", action="append", metavar="PREFIX", help="leave out these tensors")
    add(
        "--allow-pickled-module",
        action="store_true",
        help="read whole pickled modules as data, without running anything in them",
    )
    add(
        "--stub",
        action="append",
        metavar="PACKAGE",
        help="another package whose classes a pickled module may name",
    )
    add("--force", action="store_true", help="replace an older converted checkpoint")
    return parser


def _run(parsed: argparse.Namespace, token: CancelToken) -> int:
    from hummingbird_export.convert.container import Checkpoint, open_checkpoint
    from hummingbird_export.convert.conversion import Options, check_tensors, convert
    from hummingbird_export.convert.doctor import diagnose
    from hummingbird_export.convert.lora import Lora, read_lora
    from hummingbird_export.convert.provenance import NOTICE, read_terms
    from hummingbird_export.convert.table import lora_line, report

    started = time.perf_counter()

    def open_file(path: Path) -> Checkpoint:
        return open_checkpoint(path, modules=parsed.allow_pickled_module, stubs=parsed.stub or ())

    lora: Lora | None = None
    if parsed.lora is not None:
        lora = read_lora(open_file(parsed.lora))
        if lora is None:
            raise InputError(
                "lora.pairs",
                f"LoRA {parsed.lora}: got a checkpoint without updates, expected pairs of them",
                hint="see docs/convert.md for the two forms that can be read",
            )
    diagnosis = diagnose([open_file(path) for path in parsed.source], drop=parsed.drop or ())
    print(report(diagnosis), file=sys.stdout if parsed.inspect else sys.stderr, flush=True)
    if parsed.inspect:
        if lora is not None:
            print(f"\n{parsed.lora.name}  {lora_line(lora)}")
            if "unet" in diagnosis.parts:
                lora.targets(diagnosis.parts["unet"].expected)
        check_tensors(diagnosis)
        return 0
    options = Options(
        terms=read_terms(parsed.licence, parsed.licence_file),
        name=parsed.name or (diagnosis.variant.name if diagnosis.variant else "parts"),
        dtype=parsed.dtype,
        lora=lora,
        strength=parsed.lora_strength,
        variant=parsed.variant,
        partial=parsed.partial,
        watch=token.raise_if_cancelled,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    out = convert(parsed.output, diagnosis, options, overwrite=parsed.force)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    print(NOTICE, file=sys.stderr)
    print(f"{size} bytes, {time.perf_counter() - started:.1f} s", file=sys.stderr)
    print(out)
    return 0
