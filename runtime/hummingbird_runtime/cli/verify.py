"""``hummingbird verify [DIR]``: hash every file of a bundle.

``--deep`` also opens every graph, compares it with its probes and draws a tiny clip twice;
``--full`` draws one clip of the default size and tells seconds by stage and peak memory.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.cli.parser import Parser, names, number_in, positive_number
from hummingbird_runtime.cli.worker import run_cancellable

if TYPE_CHECKING:
    import argparse

    from hummingbird_runtime.cancel import CancelToken


def main(arguments: list[str]) -> int:
    """Verify the bundle; see ``hummingbird verify --help``."""
    parser = Parser(prog="hummingbird verify", description="Check a bundle against its manifest.")
    add = parser.add_argument
    add("bundle", nargs="?", metavar="DIR", help="default: the built-in bundle")
    add("--deep", action="store_true", help="run every graph's probes, draw a tiny clip twice")
    add("--full", action="store_true", help="draw one clip of the default size: seconds, memory")
    add("--decoder", choices=("full", "tiny"), help="which decoder --full draws with")
    add("--providers", type=names, metavar="A,B",
        help="ONNX Runtime execution providers, in order (default: the CPU)")  # fmt: skip
    add("--threads", type=number_in(1, 1024), metavar="N", help="threads of one graph run")
    add("--timeout", type=positive_number, metavar="S", help="give up after S seconds (exit 7)")
    parsed = parser.parse(arguments)
    bundle = Bundle.open(parsed.bundle)
    manifest = bundle.manifest
    total = sum(entry.bytes for entry in manifest.files.values())
    result = f"{len(manifest.files)} files, {total} bytes, every hash right"
    if parsed.deep or parsed.full:
        result += run_cancellable(lambda token: _run(bundle, parsed, token), timeout=parsed.timeout)
    print(f"ok {manifest.name} {manifest.bundle_id}: {result}")
    return 0


def _run(bundle: Bundle, parsed: argparse.Namespace, token: CancelToken) -> str:
    """What the checks that run graphs found, in words."""
    from hummingbird_runtime import deep_check
    from hummingbird_runtime.providers import session_options_from

    arguments: dict[str, Any] = {"providers": parsed.providers, "threads": parsed.threads}
    result = ""
    if parsed.full:  # first, so that the peak is that of the clip alone
        seconds = deep_check.draw_default(bundle, arguments, parsed.decoder, token)
        peak = deep_check.peak_memory()
        memory = "not told by this system" if peak is None else f"{peak / 1e6:.0f} MB"
        stages = ", ".join(f"{stage} {value:.2f} s" for stage, value in seconds.items())
        result += f"; one clip: {stages}, peak memory {memory}"
    if parsed.deep:
        options = session_options_from(**arguments)
        count = deep_check.check_graphs(
            bundle, options, cancel=token, note=lambda text: print(text, file=sys.stderr)
        )
        digest = deep_check.check_equal_runs(bundle, arguments, token)
        result += f"; {len(bundle.manifest.graphs)} graphs opened, {count} probes held"
        result += f"; two runs equal ({digest[:12]})"
    return result
