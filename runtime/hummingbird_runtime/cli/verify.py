"""``hummingbird verify [DIR]``: hash every file of a bundle; ``--deep`` also opens and runs it."""

from __future__ import annotations

import hashlib
import sys

from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.cancel import CancelToken
from hummingbird_runtime.cli.parser import Parser, positive_number
from hummingbird_runtime.cli.worker import run_cancellable
from hummingbird_runtime.errors import ExecutionError
from hummingbird_runtime.manifest import Side


def main(arguments: list[str]) -> int:
    """Verify the bundle; see ``hummingbird verify --help``."""
    parser = Parser(prog="hummingbird verify", description="Check a bundle against its manifest.")
    add = parser.add_argument
    add("bundle", nargs="?", metavar="DIR", help="default: the built-in bundle")
    add("--deep", action="store_true", help="open every graph and draw a tiny clip twice")
    add("--timeout", type=positive_number, metavar="S", help="give up after S seconds (exit 7)")
    parsed = parser.parse(arguments)
    bundle = Bundle.open(parsed.bundle)
    manifest = bundle.manifest
    total = sum(entry.bytes for entry in manifest.files.values())
    result = f"{len(manifest.files)} files, {total} bytes, every hash right"
    if parsed.deep:
        digest = run_cancellable(lambda token: _deep(bundle, token), timeout=parsed.timeout)
        result += f"; {len(manifest.graphs)} graphs opened; two runs equal ({digest[:12]})"
    print(f"ok {manifest.name} {manifest.bundle_id}: {result}")
    return 0


def _deep(bundle: Bundle, token: CancelToken) -> str:
    """Open every graph, then draw the smallest clip twice, each time with a fresh pipeline.

    Raises:
        IntegrityError: ``bundle.signature_mismatch``.
        ExecutionError: ``verify.runs_differ``.
    """
    from hummingbird_runtime.session import OnnxRuntimeBackend, SessionOptions
    from hummingbird_runtime.signature import check_signature

    for role, graph in bundle.manifest.graphs.items():
        session = OnnxRuntimeBackend().open(bundle.path(role), SessionOptions())
        try:
            check_signature(session, graph, role)
        finally:
            session.close()
        token.raise_if_cancelled()
        print(f"opened {role}", file=sys.stderr)
    first, second = (_draw_smallest(bundle, token) for _ in range(2))
    if first != second:
        raise ExecutionError(
            "verify.runs_differ",
            f"bundle {bundle.manifest.name}: got {first[:12]} and {second[:12]} from equal "
            "requests, expected equal frames",
            hint="try --providers CPUExecutionProvider, and report it if it stays",
        )
    return first


def _draw_smallest(bundle: Bundle, token: CancelToken) -> str:
    """SHA-256 of the frames of the smallest clip that the bundle allows."""
    from hummingbird_runtime.pipeline import TextToVideoPipeline

    facts = bundle.manifest.model
    with TextToVideoPipeline.from_pretrained(bundle.root) as pipe:
        video = pipe(
            facts.vocabulary_examples[0] if facts.vocabulary_examples else "",
            num_frames=min(max(2, facts.frames.allowed[0]), facts.frames.allowed[1]),
            height=_smallest(facts.height),
            width=_smallest(facts.width),
            num_inference_steps=facts.num_inference_steps.default,
            seed=0,
            cancel=token,
        )
    return hashlib.sha256(video.frames.tobytes()).hexdigest()


def _smallest(side: Side) -> int:
    return -(-side.allowed[0] // side.multiple_of) * side.multiple_of
