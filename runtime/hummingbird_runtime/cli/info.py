"""``hummingbird info [DIR]``: what a bundle is, what it can draw and under which licence."""

from __future__ import annotations

import json
from typing import Any

from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.cli.parser import Parser
from hummingbird_runtime.manifest import UPSCALE, UPSCALER, ModelFacts


def main(arguments: list[str]) -> int:
    """Verify the bundle and print its facts; see ``hummingbird info --help``."""
    parser = Parser(prog="hummingbird info", description="Show what a bundle is and can draw.")
    parser.add_argument("bundle", nargs="?", metavar="DIR", help="default: the built-in bundle")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parsed = parser.parse(arguments)
    bundle = Bundle.open(parsed.bundle)
    if parsed.json:
        print(json.dumps(_document(bundle), ensure_ascii=False, indent=2))
    else:
        print("\n".join(_lines(bundle)))
    return 0


def _document(bundle: Bundle) -> dict[str, Any]:
    document = bundle.manifest.to_json()
    document["path"] = str(bundle.root)
    document["scheduler"] = bundle.scheduler.to_json()
    document["bytes"] = _total(bundle)
    return document


def _lines(bundle: Bundle) -> list[str]:
    manifest, facts = bundle.manifest, bundle.manifest.model
    scheduler = bundle.scheduler
    rows = {
        "bundle": f"{manifest.name} ({manifest.bundle_id})",
        "folder": str(bundle.root),
        "licence": f"{manifest.licence.name} (see {manifest.licence.file})",
        "size": f"{_total(bundle) / 1e6:.1f} MB in {len(manifest.files)} files",
        "target": manifest.target,
        **_model_rows(facts),
        **({"upscaled": _upscaled(facts)} if UPSCALER in manifest.graphs else {}),
        "sampler": f"{scheduler.sampler}, {scheduler.prediction_type}, "
        f"{scheduler.timestep_spacing}",
    }
    lines = [f"{name:12}{text}" for name, text in rows.items()]
    lines.append("graphs")
    for role, graph in manifest.graphs.items():
        size = sum(manifest.files[p].bytes for p in manifest.files if p.startswith(graph.path))
        lines.append(
            f"  {role:18}{graph.precision}, opset {graph.opset}, {size / 1e6:.1f} MB; "
            f"parity: {_figures(graph.parity)}"
        )
        if graph.quality:
            lines.append(f"  {'':18}quality: {_figures(graph.quality)}")
    if manifest.adapters:
        lines += ["styles", *(f"  {style}" for style in sorted(manifest.adapters))]
    if facts.vocabulary_examples:
        lines += ["examples", *(f"  {example}" for example in facts.vocabulary_examples)]
    if facts.grammar:
        lines += ["grammar", *(f"  {line}" for line in facts.grammar.splitlines())]
    return lines


def _model_rows(facts: ModelFacts) -> dict[str, str]:
    height, width, steps, fps = (
        facts.height,
        facts.width,
        facts.num_inference_steps,
        facts.fps_condition,
    )
    guidance = facts.guidance
    return {
        "frames": f"{facts.frames.default} (trained {facts.frames.trained}, "
        f"allowed {_range(facts.frames.allowed)}), played at {facts.playback_fps} a second",
        "pixels": f"{width.default} x {height.default} (width {_range(width.allowed)} by "
        f"{width.multiple_of}, height {_range(height.allowed)} by {height.multiple_of})",
        "steps": f"{steps.default} (trained {', '.join(map(str, steps.trained))}, "
        f"allowed {_range(steps.allowed)})",
        "guidance": f"{guidance.kind}, {guidance.default:g} "
        f"(trained {_range(guidance.trained)}, allowed {_range(guidance.allowed)})",
        "fps given": f"{fps.default} (trained {', '.join(map(str, fps.trained))}, "
        f"allowed {_range(fps.allowed)})",
    }


def _upscaled(facts: ModelFacts) -> str:
    width, height = UPSCALE * facts.width.default, UPSCALE * facts.height.default
    return f"{UPSCALE} times, to {width} x {height}, unless --no-upscale"


def _figures(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in values.items()) or "not measured"


def _range(pair: tuple[float, float]) -> str:
    return f"{pair[0]:g}" if pair[0] == pair[1] else f"{pair[0]:g} to {pair[1]:g}"


def _total(bundle: Bundle) -> int:
    return sum(entry.bytes for entry in bundle.manifest.files.values())
