"""``hummingbird sample [FILE]``: draw one of the bundle's example prompts."""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from hummingbird_runtime.cli.clip import run_job
from hummingbird_runtime.cli.clip_job import ClipJob, add_run_options, shared_settings
from hummingbird_runtime.cli.parser import Parser, whole_number
from hummingbird_runtime.cli.verbs import missing_extra

if TYPE_CHECKING:
    from hummingbird_runtime.request import Options


def main(arguments: list[str]) -> int:
    """Run the verb; see ``hummingbird sample --help``."""
    if any(word == "--suite" or word.startswith("--suite=") for word in arguments):
        return _suite(arguments)
    parsed = _parser().parse(arguments)
    output = parsed.output if parsed.file is None else parsed.file
    if output is None and find_spec("av") is not None:
        output = "sample.mp4"
    elif output is None:
        output = "sample.png"
        if not parsed.quiet:
            print(
                "no H.264 encoder here, so an animated PNG: "
                "pip install 'hummingbird-edge[video]' brings .mp4",
                file=sys.stderr,
            )
    options: Options = {
        "seed": parsed.seed,
        "decoder": parsed.decoder,
        "upscale": parsed.upscale,
    }
    return run_job(ClipJob(prompt=None, output=output, options=options, **shared_settings(parsed)))


def _suite(arguments: list[str]) -> int:
    """The clips of a benchmark's prompts, by the package that knows them."""
    try:
        verb = importlib.import_module("hummingbird_bench.vbench.sample_verb")
    except ModuleNotFoundError as error:
        raise missing_extra("hummingbird sample --suite", "hummingbird_bench", "bench") from error
    return int(verb.main(arguments))


def _parser() -> Parser:
    parser = Parser(
        prog="hummingbird sample",
        description="Draw one of the bundle's example prompts; "
        "with --suite vbench, the clips of that benchmark (--suite vbench --help).",
    )
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "file", nargs="?", metavar="FILE", help="default: sample.mp4, sample.png without PyAV"
    )
    place.add_argument("-o", "--output", metavar="FILE", help="the same as a flag")
    parser.add_argument(
        "--seed", type=whole_number, default=0, metavar="N", help="also picks the example"
    )
    add_run_options(parser)
    return parser
