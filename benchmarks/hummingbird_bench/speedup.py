"""``hummingbird bench speedup``: the whole report against VideoCrafter2's recipe, in one command.

Plan (``speedup_plan``), measurement (``speedup_run``), then the raw report: which arms are compared
under which treatment, where the speed-up comes from, and what must be read with it.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hummingbird_bench.bundle_source import Source
from hummingbird_bench.environment import read_environment
from hummingbird_bench.extrapolation import TOLERANCE, validate
from hummingbird_bench.peaks import sgemm_rate
from hummingbird_bench.report import Comparison, Waterfall, WaterfallStep, write_report
from hummingbird_bench.speedup_plan import Plan, PlannedArm, Request, make_plan
from hummingbird_bench.speedup_run import Outcome, build_bundle, run_plan, utc_now
from hummingbird_bench.verify_verb import render
from hummingbird_runtime import __version__
from hummingbird_runtime.atomic import atomic_file
from hummingbird_runtime.cli.parser import Parser, number_in, positive_number
from hummingbird_runtime.errors import InputError, UsageError
from hummingbird_runtime.strict_json import parse_json

REFERENCE_SGEMM = 185.0
"""GFLOP/s of the machine that the plan's speeds were taken on."""

TINY_MODELS = ("07b-tiny", "vc2-tiny")
"""Ours and the opponent where no bundles are given at tiny scale."""

POOR_DB = 15.0
"""Signal to noise of a decoder below which the report says so."""

ONLY_ARCHITECTURE = "architecture only, quality not shown at full size"


def comparisons(plan: Plan) -> list[Comparison]:
    """Which arms are held against each other, and what each pair is about."""
    found: list[Comparison] = []
    for frames in plan.request.rows:
        arms = [a for a in plan.arms if a.workload.frames == frames]
        row = f"{frames} against {frames} frames"
        ours = [a for a in arms if a.part in ("ours", "complete")]
        shown = _headline_arms(ours)
        opponents = [a for a in arms if a.part == "opponent" and _is_opponent(a)]
        torch = next(a for a in opponents if a.workload.kind == "torch")
        for slow in opponents:
            for fast in ours:
                headline = slow is torch and fast in shown
                if slow is torch or slow.workload.precision == fast.workload.precision:
                    found.append(_compare(row, slow, fast, "clip", headline=headline))
        found += [
            _compare(row, slow, torch, "pass") for slow in opponents
            if slow.workload.kind in ("torch-as-published", "torch-compile")
        ]  # fmt: skip
        found += [
            _compare(row, torch, fast, "clip") for fast in opponents
            if fast.workload.kind in ("runtime", "openvino")
        ]  # fmt: skip
        for again in (a for a in arms if a.part == "again"):
            twin = next(a for a in ours if f"{a.workload.name}-again" == again.workload.name)
            found.append(_compare(row, twin, again, "clip"))
    return found


def _headline_arms(ours: Sequence[PlannedArm]) -> list[PlannedArm]:
    """Of the first precision one arm a decoder, the complete one where there is one."""
    first = [a for a in ours if a.workload.precision == ours[0].workload.precision]
    best = {a.workload.decoder: a for a in sorted(first, key=lambda a: a.part, reverse=True)}
    return list(best.values())


def _is_opponent(arm: PlannedArm) -> bool:
    return arm.workload.kind != "external"


def _compare(
    row: str, slow: PlannedArm, fast: PlannedArm, metric: Any, *, headline: bool = False
) -> Comparison:
    a, b = slow.workload, fast.workload
    treatment = [
        axis
        for axis, differs in (
            ("steps", (a.steps, a.passes_per_step) != (b.steps, b.passes_per_step)),
            ("model", a.model != b.model),
            ("engine", a.kind != b.kind),
            ("precision", a.precision != b.precision),
            ("decoder", a.decoder != b.decoder),
        )
        if differs
    ]
    return Comparison(row, a.name, b.name, tuple(treatment), metric, headline)


def waterfalls(plan: Plan) -> list[Waterfall]:
    """For each of our headline arms: the opponent in torch turned into it, one change at a time."""
    found = []
    for frames in plan.request.rows:
        arms = {a.workload.name: a for a in plan.arms if a.workload.frames == frames}
        torch = f"vc2-torch-{frames}"
        ours = [a for a in arms.values() if a.part in ("ours", "complete")]
        best = ours[0].workload
        passes = best.steps * best.passes_per_step
        slow = arms[torch].workload.steps * arms[torch].workload.passes_per_step
        for last in (a.workload for a in _headline_arms(ours)):
            steps = [
                WaterfallStep("start", "VideoCrafter2 in torch", torch, torch, slow, torch),
                WaterfallStep("passes", f"{slow} passes to {passes}", torch, torch, passes, torch),
            ]
            chain = [("engine", "torch to our compiler and runtime", f"vc2-runtime-fp32-{frames}"),
                     ("pruning", "1.4 B to 0.7 B", f"hummingbird-fp32-full-{frames}"),
                     ("precision", f"fp32 to {best.precision}",
                      f"hummingbird-{best.precision}-full-{frames}")]  # fmt: skip
            skipped: list[tuple[str, str]] = []
            for name, label, part in chain:
                arm = part
                if name == "precision" and best.precision == "fp32":
                    continue
                if arm not in arms:
                    skipped.append((name, label))
                    continue
                if last.decoder == "full" and part == f"hummingbird-{best.precision}-full-{frames}":
                    arm = last.name  # the end of this waterfall, perhaps its complete twin
                names = " and ".join([*(n for n, _ in skipped), name])
                labels = ", ".join([*(text for _, text in skipped), label])
                steps.append(WaterfallStep(names, labels, arm, arm, passes, arm))
                skipped = []
            if last.decoder == "tiny":
                steps.append(
                    WaterfallStep(
                        "decoder", "full decoder to tiny", last.name, last.name, passes, last.name
                    )
                )
            title = f"{last.name} against {torch}"
            found.append(Waterfall(title, torch, last.name, tuple(steps)))
    return found


def raw_report(plan: Plan, outcome: Outcome, *, command: str) -> dict[str, Any]:
    """Everything measured, as ``report.write_report`` takes it."""
    checks = _validations(plan, outcome)
    wrong = {
        str(one["arm"]): f"its extrapolation missed a complete run by "
        f"{abs(float(one['predicted_s']) / float(one['measured_s']) - 1):.1%}"
        for one in checks
        if abs(float(one["predicted_s"]) / float(one["measured_s"]) - 1) > TOLERANCE
    }
    measured = {sample.arm for sample in outcome.samples}
    arms = [
        {
            "workload": arm.workload.published(),
            "identity": outcome.identities.get(name, {}),
            "gate": outcome.gates.get(name),
            "invalid": outcome.failures.get(name, wrong.get(name, "")),
        }
        for arm in plan.arms
        for name in [arm.workload.name]
    ]
    random = [
        name
        for name, identity in outcome.identities.items()
        if name.startswith("hummingbird")
        and "random" in (identity.get("weights"), identity.get("decoder_weights"))
    ]
    title = f"Hummingbird against VideoCrafter2's recipe, {plan.request.scale} scale"
    return {
        "schema": "hummingbird-bench/1",
        "title": f"{title}: {ONLY_ARCHITECTURE}" if random else title,
        "scale": plan.request.scale,
        "made": {
            "version": __version__,
            "command": command,
            "started": outcome.started,
            "finished": utc_now(),
        },
        "environment": read_environment(),
        "arms": arms,
        "samples": [sample.to_json() for sample in outcome.samples],
        "comparisons": [asdict(one) for one in comparisons(plan) if {one.a, one.b} <= measured],
        "waterfalls": [asdict(one) for one in waterfalls(plan) if _parts(one) <= measured],
        "validations": checks,
        "stop_rule": f"Fixed beforehand: {plan.request.rounds} rounds, each arm once a round, "
        "in turn forwards and backwards.",
        "notes": _notes(plan, outcome, random),
    }


def _parts(asked: Waterfall) -> set[str]:
    """Arms that a waterfall takes its seconds from."""
    return {name for step in asked.steps for name in (step.text, step.unet, step.decoder)}


def _validations(plan: Plan, outcome: Outcome) -> list[dict[str, Any]]:
    """Each arm of passes that has a complete run beside it."""
    arms = {a.workload.name: a.workload for a in plan.arms}
    done = {sample.arm for sample in outcome.samples}
    return [
        dict(validate(arms[name], arms[f"{name}-whole"], outcome.samples))
        for name in arms
        if f"{name}-whole" in arms and {name, f"{name}-whole"} <= done
    ]


def _notes(plan: Plan, outcome: Outcome, random: Sequence[str]) -> list[str]:
    notes = []
    if random:
        notes.append(
            f"Weights are random in {', '.join(random)}: {ONLY_ARCHITECTURE}. Times do not depend "
            "on what the weights are."
        )
    parts = sorted({a.workload.name for a in plan.arms if a.workload.unet_passes is not None})
    if parts:
        notes.append(
            f"Extrapolated: {', '.join(parts)}. Seconds of a clip are text + decoding + passes x "
            "the mean of the measured ones, which are spread over the schedule; decoding is "
            "measured on a few frames, the first of which counts once and the mean of the others "
            "for all others."
        )
    alike: dict[str, list[str]] = {}
    for name, gate in outcome.gates.items():
        for text in _quality_notes(gate or {}, name in random):
            alike.setdefault(text, []).append(name)
    notes += [f"{', '.join(names)}: {text}" for text, names in alike.items()]
    return notes + list(plan.left_out)


def _quality_notes(gate: Mapping[str, Any], is_random: bool) -> list[str]:
    """What quantization left of an arm's clips, and what is to be known of its decoder."""
    quality, notes = gate.get("quality") or {}, []
    if "snr_db_mean" in quality:
        notes.append(
            f"final latents of whole clips {quality['snr_db_mean']:.1f} dB from float32, "
            f"{quality['snr_db_worst']:.1f} dB the worst, as measured at export."
        )
    for role, decibels in (gate.get("graphs") or {}).items():
        if role.startswith("vae") and decibels < POOR_DB:
            text = f"decoder {decibels:.1f} dB from the float32 one on latents of noise"
            if is_random:
                text += ", with random weights"
            if "psnr_db_mean" in quality:
                text += (
                    f"; frames of whole clips {quality['psnr_db_mean']:.1f} dB PSNR, "
                    f"{quality['psnr_db_worst']:.1f} dB the worst, as measured at export"
                )
            notes.append(f"{text}.")
    return notes


def machine_speed(folder: Path | None) -> float:
    """This machine's speed over the plan's; kept in the run folder.

    A budget's plan rests on it, and a run goes on only with the plan that it began with.
    """
    kept = folder / "speed.json" if folder else None
    if kept and kept.exists():
        value = parse_json(kept.read_bytes(), what=str(kept), limit=1 << 10)
        if isinstance(value, float) and value > 0:
            return value
        raise InputError(
            "bench.sample", f"{kept}: expected a positive number", hint="give another folder"
        )
    speed = sgemm_rate(5) / (REFERENCE_SGEMM * 1e9)
    if kept and kept.parent.parent.is_dir():
        kept.parent.mkdir(exist_ok=True)
        with atomic_file(kept) as partial:
            partial.write_text(json.dumps(speed), encoding="utf-8")
    return speed


def main(argv: list[str]) -> int:
    """``hummingbird bench speedup``: plan, measure, write report.json, .md and .html."""
    parser = Parser(
        prog="hummingbird bench speedup",
        description="Measure our recipe against VideoCrafter2's (DDIM, 50 steps, guidance 12: 100 "
        "passes) on this machine, and write the report.",
    )
    add = parser.add_argument
    add("--scale", choices=("tiny", "full"), default="tiny", help="sizes, default tiny")
    add("--bundle", action="append", metavar="DIR",
        help="ours; again for another precision, the first one makes the headline")  # fmt: skip
    add("--opponent-bundle", action="append", metavar="DIR",
        help="VideoCrafter2 by our own exporter, once for each precision")  # fmt: skip
    add("--frames", type=number_in(1, 104), nargs="+", default=None, metavar="N",
        help="frames of each row, default 26")  # fmt: skip
    add("--pairs", type=number_in(1, 1000), default=5, metavar="N", help="rounds, default 5")
    add("--threads", type=number_in(1, 1024), metavar="N", help="of one run, default all cores")
    add("--budget-minutes", type=positive_number, metavar="M", help="leave out what has no room")
    add("--openvino", action="store_true", help="also run the opponent's graphs by OpenVINO")
    add("--compile", action="store_true", help="also torch.compile, which takes long to start")
    add("--external", action="append", metavar="COMMAND",
        help="another engine; {prompt}, {seed}, {frames}, {output} are filled in")  # fmt: skip
    add("--weights-seed", type=number_in(0, 1 << 53), default=0, help="of the torch opponent")
    add("--dry-run", action="store_true", help="print the plan and its minutes, run nothing")
    add("-o", "--output", type=Path, metavar="RUN", help="folder of the run; goes on if it exists")
    parsed = parser.parse(argv)
    if parsed.output is None and not (parsed.dry_run and parsed.bundle):
        raise UsageError(
            "usage.arguments",
            "hummingbird bench speedup: got no --output, expected the folder of the run",
            hint="give -o RUN; a --dry-run with --bundle needs none",
        )
    own, opponents = parsed.bundle or [], parsed.opponent_bundle or []
    if parsed.scale == "tiny" and not own:
        folder: Path = parsed.output / "bundles"
        folder.mkdir(parents=True, exist_ok=True)
        made = [str(build_bundle(name, "fp32", folder / name)) for name in TINY_MODELS]
        own, opponents = made[:1], opponents or made[1:]
    ask = Request(
        scale=parsed.scale,
        rows=tuple(dict.fromkeys(parsed.frames or [26])),
        threads=parsed.threads or os.cpu_count() or 1,
        rounds=parsed.pairs,
        budget_minutes=parsed.budget_minutes,
        openvino=parsed.openvino,
        compile=parsed.compile,
        external=tuple(tuple(shlex.split(text)) for text in parsed.external or []),
        weights_seed=parsed.weights_seed,
        speed=machine_speed(None if parsed.dry_run else parsed.output),
    )
    plan = make_plan(ask, [Source.read(p) for p in own], [Source.read(p) for p in opponents])
    if parsed.dry_run:
        print(plan.text())
        return 0

    def note(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    outcome = run_plan(plan, parsed.output, note=note)
    command = shlex.join(["hummingbird", "bench", "speedup", *argv])
    path = parsed.output / "report.json"
    write_report(raw_report(plan, outcome, command=command), path, overwrite=True)
    render(path)
    print(path)
    return 0
