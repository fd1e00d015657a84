"""Every figure of a report out of its raw samples, by one pure function.

Nothing is stored that is not computed here, so ``hummingbird bench verify`` can compute it again.
Seconds of a clip are the wall time where the whole clip ran. Where only some passes of the U-Net
ran, they are put together from passes, text and decoded frames, and are marked extrapolated.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hummingbird_bench.certificate import compare
from hummingbird_bench.identity import Identity
from hummingbird_bench.sample import Sample
from hummingbird_bench.statistics import paired_log_ratio
from hummingbird_bench.waterfall import derive_waterfall
from hummingbird_bench.workload import Workload
from hummingbird_runtime.errors import InputError

if TYPE_CHECKING:
    from hummingbird_bench.report import Arm, Comparison, Report

PHASES = ("steady", "first", "cold")
"""In the order in which a figure prefers them."""

UNET_STAGES = ("step", "pass")


def derive(report: Report) -> dict[str, Any]:
    """All figures of a report.

    Raises:
        InputError: ``report.no_samples`` for an arm that is compared and never ran to its end,
            ``report.unknown_arm`` for a name that is no arm.
    """
    arms = {arm.workload.name: arm for arm in report.arms}
    if len(arms) != len(report.arms):
        raise _unknown("two arms have the same name")
    for name in [s.arm for s in report.samples] + [
        n for c in report.comparisons for n in (c.a, c.b)
    ]:
        if name not in arms:
            raise _unknown(f"got {name!r}, expected one of {', '.join(arms)}")
    for sample in report.samples:
        if sample.wall_s <= 0 or min((t.seconds for t in sample.stages), default=0.0) < 0:
            raise InputError(
                "report.impossible",
                f"{sample.arm}, run {sample.ordinal}: got a duration that is not positive",
                hint="measure again",
            )
    runs = {name: [s for s in report.samples if s.arm == name] for name in arms}
    figures = {name: _arm(arms[name], runs[name]) for name in arms}
    comparisons = [_comparison(c, arms, runs, figures) for c in report.comparisons]
    for one in comparisons:
        one["beside"] = _beside(one, comparisons)
    return {
        "arms": list(figures.values()),
        "comparisons": comparisons,
        "waterfalls": [derive_waterfall(w, figures, comparisons) for w in report.waterfalls],
        "validations": [
            {**dataclasses.asdict(v), "error": v.predicted_s / v.measured_s - 1.0}
            for v in report.validations
        ],
    }


def clip_stages(workload: Workload, sample: Sample) -> dict[str, float]:
    """Seconds of one clip by stage, ``unet`` for all passes and ``rest`` for what no stage covers.

    Where only some passes or frames were measured, the U-Net's seconds are scaled to all passes and
    the decoder's to all frames, and nothing else is. The first frame takes longer, here as in a
    complete clip: it counts once, the mean of the others for all others.
    """
    found: dict[str, float] = {}
    for stage in sample.stages:
        name = "unet" if stage.name in UNET_STAGES else stage.name
        found[name] = found.get(name, 0.0) + stage.seconds
    found["rest"] = max(sample.wall_s - sum(found.values()), 0.0)
    if workload.unet_passes is not None:
        passes = workload.steps * workload.passes_per_step
        found["unet"] = passes * pass_seconds(workload, sample)
        first, *others = [t.seconds for t in sample.stages if t.name == "decode"] or [0.0]
        if others and workload.decode_frames == 1 + len(others):
            found["decode"] = first + (workload.frames - 1) * statistics.fmean(others)
        else:  # one frame, or no stage for each
            measured = workload.decode_frames or workload.frames
            found["decode"] = found.get("decode", 0.0) * workload.frames / measured
    return found


def clip_seconds(workload: Workload, sample: Sample) -> float:
    """Seconds of one clip by this sample, see the head of the module."""
    if workload.unet_passes is None:
        return sample.wall_s
    return sum(clip_stages(workload, sample).values())


def pass_seconds(workload: Workload, sample: Sample) -> float:
    """Mean seconds of one pass of the U-Net by this sample; a step may have two."""
    stages = [t for t in sample.stages if t.name in UNET_STAGES]
    passes = sum(workload.passes_per_step if t.name == "step" else 1 for t in stages)
    if not passes:
        raise InputError(
            "report.no_samples",
            f"{sample.arm}, run {sample.ordinal}: got no stage {' or '.join(UNET_STAGES)}",
            hint="measure the arm with its stages",
        )
    return sum(t.seconds for t in stages) / passes


def chosen(samples: Sequence[Sample]) -> list[Sample]:
    """The samples that figures come from: steady ones, or else first ones, or else cold ones."""
    for phase in PHASES:
        if found := [s for s in samples if s.phase == phase]:
            return sorted(found, key=lambda s: s.ordinal)
    return []


def _arm(arm: Arm, samples: Sequence[Sample]) -> dict[str, Any]:
    work, runs = arm.workload, chosen(samples)
    reason = arm.invalid
    if not reason and arm.gate is not None and not arm.gate.get("passed"):
        reason = "its output differs from its own float32 reference"
    if not reason and not samples:
        reason = "it has no finished run"
    hashes = {tuple(sorted(s.outputs.items())) for s in samples}
    peaks = [s.peak_pss_bytes for s in samples if s.peak_pss_bytes is not None]
    energy = [s.energy_j for s in runs if s.energy_j is not None]
    found: dict[str, Any] = {
        "name": work.name,
        "valid": not reason,
        "reason": reason,
        "gated": arm.gate is not None,
        "extrapolated": work.unet_passes is not None,
        "passes": work.steps * work.passes_per_step,
        "runs": {phase: sum(s.phase == phase for s in samples) for phase in PHASES},
        "phase": runs[0].phase if runs else "",
        "peak_rss_bytes": max((s.peak_rss_bytes for s in samples), default=0),
        "peak_pss_bytes": max(peaks) if peaks else None,
        "energy_j": statistics.median(energy) if energy and len(energy) == len(runs) else None,
        "same_output": len(hashes) <= 1,
        "stolen_ticks": sum(s.steal_ticks_after - s.steal_ticks_before for s in samples),
        "load": max((s.load_before for s in samples), default=0.0),
    }
    if not runs:
        return {**found, "clip": None, "pass_s": None, "stages": [], "coverage": None, "cpus": None,
                "cold_s": None, "first_s": None}  # fmt: skip
    clips = [clip_seconds(work, s) for s in runs]
    stages = _stages(work, runs)
    return {
        **found,
        "clip": {
            "median": statistics.median(clips),
            "low": min(clips),
            "high": max(clips),
            "n": len(clips),
            "deviations": [clip / statistics.median(clips) - 1.0 for clip in clips],
        },
        "pass_s": statistics.median(pass_seconds(work, s) for s in runs)
        if all(map(_has_passes, runs))
        else None,
        "stages": stages,
        "coverage": min(s.coverage for s in runs),
        "cpus": statistics.median(s.cpu_s / s.wall_s for s in runs),
        "cold_s": _median_of(work, samples, "cold"),
        "first_s": _median_of(work, samples, "first"),
    }


def _stages(work: Workload, runs: Sequence[Sample]) -> list[dict[str, Any]]:
    """Median seconds by stage of one clip, and their shares."""
    every = [clip_stages(work, sample) for sample in runs]
    names = dict.fromkeys(name for stages in every for name in stages)
    medians = {n: statistics.median(stages.get(n, 0.0) for stages in every) for n in names}
    total = sum(medians.values())
    return [{"name": n, "seconds": s, "share": s / total} for n, s in medians.items()]


def _comparison(
    asked: Comparison,
    arms: Mapping[str, Arm],
    runs: Mapping[str, Sequence[Sample]],
    figures: Mapping[str, Any],
) -> dict[str, Any]:
    a, b = arms[asked.a], arms[asked.b]
    certificate = None
    if a.identity and b.identity:
        identities = Identity.from_json(a.identity), Identity.from_json(b.identity)
        certificate = compare(*identities, asked.treatment)
    invalid = [name for name in (asked.a, asked.b) if not figures[name]["valid"]]
    reasons = [f"{name} is invalid: {figures[name]['reason']}" for name in invalid]
    if certificate is None:
        reasons.append("no same-work certificate")
    elif certificate.refused:
        reasons.append(f"unlike work: {', '.join(one.field for one in certificate.refused)}")
    found: dict[str, Any] = {
        "row": asked.row,
        "a": asked.a,
        "b": asked.b,
        "metric": asked.metric,
        "same_work": not asked.treatment,
        "headline": asked.headline,
        "valid": not reasons,
        "reason": "; ".join(reasons),
        "certificate": certificate and certificate.to_json(),
        "architecture_only": any(
            "random" in (arm.identity.get("weights"), arm.identity.get("decoder_weights"))
            for arm in (a, b)
        ),
        "extrapolated": asked.metric == "clip"
        and (a.workload.unet_passes, b.workload.unet_passes) != (None, None),
        "ratio": None,
    }
    pairs = list(zip(chosen(runs[asked.a]), chosen(runs[asked.b]), strict=False))
    if not pairs or (asked.metric == "pass" and not all(_has_passes(s) for p in pairs for s in p)):
        return found
    measure = clip_seconds if asked.metric == "clip" else pass_seconds
    ratio = paired_log_ratio(
        [measure(a.workload, s) for s, _ in pairs], [measure(b.workload, s) for _, s in pairs]
    )
    return {**found, "ratio": dataclasses.asdict(ratio)}


def _beside(one: dict[str, Any], every: Sequence[dict[str, Any]]) -> int | None:
    """Index of the A/A comparison that stands beside an A/B: of its own arms, if there is one."""
    if one["same_work"]:
        return None
    same = [i for i, other in enumerate(every) if other["same_work"] and other["ratio"]]
    near = [i for i in same if {every[i]["a"], every[i]["b"]} & {one["a"], one["b"]}]
    return (near or same or [None])[0]  # type: ignore[list-item]


def _has_passes(sample: Sample) -> bool:
    return any(stage.name in UNET_STAGES for stage in sample.stages)


def _median_of(work: Workload, samples: Sequence[Sample], phase: str) -> float | None:
    found = [clip_seconds(work, s) for s in samples if s.phase == phase]
    return statistics.median(found) if found else None


def _unknown(problem: str) -> InputError:
    return InputError("report.unknown_arm", f"the report: {problem}", hint="name each arm once")
