"""``hummingbird sample --suite vbench -o DIR``: draw the clips that VBench judges."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hummingbird_bench.vbench.suite import (
    SuiteConfig,
    plan_suite,
    read_prompts,
    sample_suite,
    standard_prompts,
)
from hummingbird_runtime.cli.parser import (
    Parser,
    names,
    number,
    number_in,
    positive_number,
    style,
    whole_number,
)
from hummingbird_runtime.cli.worker import run_cancellable
from hummingbird_runtime.output import resolve_output
from hummingbird_runtime.writers import find_writer

if TYPE_CHECKING:
    from hummingbird_runtime.cancel import CancelToken

_OPTIONS = ("num_frames", "height", "width", "num_inference_steps", "fps_condition")


def main(arguments: Sequence[str]) -> int:
    """Run the verb; draws what is missing, prints the folder."""
    parsed = _parser().parse(arguments)
    find_writer("clip.mp4")
    prompts = standard_prompts() if parsed.prompts is None else read_prompts(parsed.prompts)
    config = SuiteConfig(
        parsed.samples, parsed.flicker_samples, parsed.dimensions or (), parsed.seed
    )
    clips = plan_suite(prompts, config)[: parsed.limit]
    folder = resolve_output(parsed.output)
    drawn = run_cancellable(
        lambda token: _draw(parsed, clips, folder, token), timeout=parsed.timeout
    )
    if not parsed.quiet:
        print(f"{len(clips)} clips, {drawn} drawn now", file=sys.stderr)
    print(folder)
    return 0


def _draw(parsed: Any, clips: Any, folder: Path, token: CancelToken) -> int:
    from hummingbird_runtime.pipeline import TextToVideoPipeline

    adapter, strength = parsed.style or (None, 1.0)
    chosen = {name: getattr(parsed, name) for name in (*_OPTIONS, "guidance_scale", "decoder")}
    drawn, started = 0, time.monotonic()
    with TextToVideoPipeline.from_pretrained(
        parsed.bundle,
        providers=parsed.providers,
        threads=parsed.threads,
        style=adapter,
        style_strength=strength,
    ) as pipe:
        facts = {
            "suite": "vbench",
            "bundle_id": pipe.bundle.manifest.bundle_id,
            "seed": parsed.seed,
            "style": parsed.style and [str(adapter), strength],
            **chosen,
        }

        def draw(prompt: str, seed: int) -> Any:
            return pipe(prompt, seed=seed, cancel=token, **chosen)

        for done, (_, fresh) in enumerate(sample_suite(draw, folder, clips, facts), 1):
            drawn += fresh
            if not parsed.quiet and sys.stderr.isatty():
                pace = (time.monotonic() - started) / max(drawn, 1)
                left = pace * (len(clips) - done)
                print(f"\r{done}/{len(clips)}  {left / 60:.0f} min left ", end="", file=sys.stderr)
            token.raise_if_cancelled()
    return drawn


def _parser() -> Parser:
    parser = Parser(
        prog="hummingbird sample --suite vbench",
        description="Draw VBench's prompts under the names it expects; goes on where it stopped.",
    )
    add = parser.add_argument
    add("--suite", choices=("vbench",), required=True)
    add("-o", "--output", required=True, metavar="DIR",
        help="folder for clips only; seeds go to DIR.seeds.jsonl")  # fmt: skip
    add("--dimensions", type=names, metavar="A,B", help="only their prompts (default: all)")
    add("--samples", type=number_in(1, 1000), default=5, help="of a prompt (default %(default)s)")
    add("--flicker-samples", type=number_in(1, 1000), default=25,
        help="of a prompt for temporal flickering (default %(default)s)")  # fmt: skip
    add("--prompts", type=Path, metavar="FILE", help="your own: one a line, or VBench's JSON")
    add("--limit", type=number_in(1, 1_000_000), metavar="N", help="only the first N clips")
    add("--seed", type=whole_number, default=0, metavar="N", help="mixed into every clip's seed")
    for name in _OPTIONS:
        add("--" + name.replace("_", "-"), type=whole_number, metavar="N")
    add("--guidance-scale", type=number, metavar="W")
    add("--bundle", metavar="DIR", help="bundle folder (default: the built-in one)")
    add("--style", type=style, metavar="STYLE[:S]", help="adapter file or name, and its strength")
    add("--decoder", choices=("full", "tiny"), help="tiny is faster where the bundle has one")
    add("--providers", type=names, metavar="A,B", help="ONNX Runtime execution providers, in order")
    add("--threads", type=number_in(1, 1024), metavar="N", help="threads of one graph run")
    add("--timeout", type=positive_number, metavar="S", help="stop after S seconds (exit 7)")
    add("-q", "--quiet", action="store_true", help="no progress on stderr")
    return parser
