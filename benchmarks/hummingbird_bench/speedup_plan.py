"""What a speed-up report measures, planned beforehand: arms, rounds, and the minutes they take.

Every round runs each arm once, forwards and backwards by turns; a comparison pairs the samples of a
round. What the budget has no room for is left out by a fixed order, and the plan says so. Nothing
is run here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hummingbird_bench.bundle_source import Source
from hummingbird_bench.flops import decoder_flops, text_flops, unet_flops
from hummingbird_bench.workload import Workload
from hummingbird_runtime.errors import InputError, UsageError

OPPONENT_STEPS = 50
"""VideoCrafter2's recipe: DDIM, 50 steps of two passes, eta 1, guidance 12."""

OPPONENT_GUIDANCE = 12.0

PAIRS = 5
"""Rounds of a report at full size."""

DECODED = 2
"""Frames that a measurement of single passes decodes; decoding is frame by frame."""

PROMPTS = {
    "full": "A drone flying over a snowy forest.",
    "tiny": "a red ball moving to the left",
}
"""By scale."""

GIGA = 1e9

SPEED = {
    "torch": 102.0,
    "torch-as-published": 95.0,
    "torch-compile": 105.0,
    "openvino": 130.0,
    "runtime fp32": 123.0,
    "runtime int8": 258.0,
    "decoder torch": 163.0,
    "decoder fp32": 166.0,
    "decoder int8": 312.0,
    "decoder tiny": 126.0,
}
"""Useful GFLOP/s on two cores at 3 GHz with AVX2, as measured; only the plan's minutes rest on it.
"""

LOAD = {"torch": 45.0, "runtime": 4.0}
"""Seconds until an arm is ready: of torch in all, of the runtime per GB of its bundle."""


@dataclass(frozen=True)
class PlannedArm:
    """One arm, how often it runs and what that is expected to cost."""

    workload: Workload
    rounds: int
    seconds: float
    """Of one sample, predicted."""
    load_s: float
    """Until the arm is ready, predicted."""
    part: str
    """``ours``, ``opponent``, ``again``: an A/A run, ``complete``: complete clips of ours in every
    round, ``check``: complete clips of an opponent in every round, which check its extrapolation,
    ``whole``: one complete clip after the rounds, which checks one of ours."""

    def minutes(self, *, live: bool) -> float:
        """Of all rounds; a live arm is loaded once, and its first run is one more."""
        live = live and self.part != "whole"
        loads = 1 if live else self.rounds
        runs = self.rounds + 1 if live else self.rounds
        return (loads * self.load_s + runs * self.seconds) / 60.0


@dataclass(frozen=True)
class Request:
    """What the caller asks of a report."""

    scale: str
    """full or tiny."""
    rows: tuple[int, ...]
    """Frames of each row."""
    threads: int
    rounds: int = PAIRS
    budget_minutes: float | None = None
    """None: everything."""
    openvino: bool = False
    compile: bool = False
    external: tuple[tuple[str, ...], ...] = ()
    """Commands of external engines."""
    weights_seed: int = 0
    """Of the torch opponent's random weights."""
    speed: float = 1.0
    """This machine's speed over the one that ``SPEED`` was taken on."""


@dataclass(frozen=True)
class Plan:
    """Arms and rounds; those of part ``whole`` run once, after the rounds."""

    request: Request
    arms: tuple[PlannedArm, ...]
    left_out: tuple[str, ...]
    """Sentences: what had no room in the budget."""

    @property
    def live(self) -> bool:
        """Whether children stay alive between rounds: small models; large ones start afresh."""
        return self.request.scale == "tiny"

    @property
    def minutes(self) -> float:
        """Predicted, of everything that is left to measure."""
        return sum(arm.minutes(live=self.live) for arm in self.arms)

    def text(self) -> str:
        """The plan for people, with predicted minutes."""
        rows = [
            f"| {a.workload.name} | {_amount(a.workload)} | {a.rounds} | {a.seconds:.1f} | "
            f"{a.minutes(live=self.live):.1f} |"
            for a in self.arms
        ]
        head = (
            "one child process per arm, alive for all rounds"
            if self.live
            else "a fresh child process for every sample, one at a time"
        )
        return "\n".join(
            [
                f"Plan: {len(self.arms)} arms, {sum(arm.rounds for arm in self.arms)} samples, "
                f"{head}; about {self.minutes:.0f} minutes beside gates, at "
                f"{self.request.speed:.0%} of the speed of the machine that the plan knows.",
                "",
                "| arm | one sample | rounds | seconds each | minutes |",
                "| --- | --- | ---: | ---: | ---: |",
                *rows,
                *(f"\n{sentence}" for sentence in self.left_out),
            ]
        )


def make_plan(ask: Request, ours: Sequence[Source], opponents: Sequence[Source]) -> Plan:
    """Choose arms and rounds.

    Args:
        ask: scale, rows and budget.
        ours: our bundles, the first one's precision is the headline's.
        opponents: VideoCrafter2 compiled by our own exporter, perhaps in several precisions.

    Raises:
        InputError: ``bench.no_bundle``, ``bench.not_the_opponent``.
        UsageError: ``bench.budget`` when the budget has no room for what a headline needs.
    """
    if not ours:
        raise InputError(
            "bench.no_bundle",
            "a speed-up report: got no bundle of ours, expected at least one",
            hint="give --bundle DIR",
        )
    for source in opponents:
        if source.passes_per_step != 2 or source.sampler != "ddim":
            raise InputError(
                "bench.not_the_opponent",
                f"{source.path}: got {source.sampler} with {source.passes_per_step} pass a step, "
                "expected VideoCrafter2's ddim with two",
                hint="export it with `hummingbird export random --config vc2`",
            )
    needed: list[PlannedArm] = []
    wanted: list[list[PlannedArm]] = []
    for frames in ask.rows:
        own, more = _row(ask, frames, ours, opponents)
        needed += own
        wanted += more
    # The same wish of every row side by side: a later row is no less important than the first.
    each = len(wanted) // len(ask.rows)
    wanted = [wanted[row * each + i] for i in range(each) for row in range(len(ask.rows))]
    plan, left_out = Plan(ask, tuple(needed), ()), []
    budget = ask.budget_minutes
    if budget is not None and plan.minutes > budget:
        raise UsageError(
            "bench.budget",
            f"a speed-up report: got --budget-minutes {budget:g}, expected at least "
            f"{plan.minutes:.0f} for the arms that its headline needs",
            hint="give more minutes or fewer --frames; wait until the machine is idle",
        )
    for group in wanted:
        larger = _with(plan, group)
        if budget is None or larger.minutes <= budget:
            plan = larger
        else:
            names = ", ".join(
                arm.workload.name + (" more than once" if arm.part == "complete" else "")
                for arm in group
            )
            left_out.append(f"No room in {budget:g} minutes: {names}.")
    return replace(plan, left_out=tuple(left_out))


def _with(plan: Plan, group: Sequence[PlannedArm]) -> Plan:
    """A plan with more arms; one of a name that is there takes its place."""
    arms = {arm.workload.name: arm for arm in (*plan.arms, *group)}
    return replace(plan, arms=tuple(arms.values()))


def _row(
    ask: Request, frames: int, ours: Sequence[Source], opponents: Sequence[Source]
) -> tuple[list[PlannedArm], list[list[PlannedArm]]]:
    """Arms that a row needs, and groups that it wants, most wanted first."""
    first = ours[0]
    tiny_scale = ask.scale == "tiny"
    torch = _torch(ask, frames, first, "torch")
    needed = [torch]
    needed += [_own(ask, frames, first, d, whole=tiny_scale) for d in first.decoders[::-1]]
    wanted: list[list[PlannedArm]] = []
    complete: list[PlannedArm] = []
    same = [s for s in opponents if s.precision == first.precision]
    wanted.append([_compiled(ask, frames, s) for s in same])
    if tiny_scale:
        whole = replace(torch.workload, name=f"{torch.workload.name}-whole", unet_passes=None,
                        decode_frames=None)  # fmt: skip
        seconds = _seconds(ask, whole, first.unet, first.text, first.decoder["full"])
        wanted.append([PlannedArm(whole, ask.rounds, seconds, torch.load_s, "check")])
    else:
        for decoder in first.decoders[::-1]:
            one = _own(ask, frames, first, decoder, whole=True)
            name = f"{one.workload.name}-whole"
            one = replace(one, workload=replace(one.workload, name=name))
            wanted.append([replace(one, rounds=1)])
            complete.append(replace(one, part="complete"))
    rest = [s for s in opponents if s.precision != first.precision]
    wanted.append([_compiled(ask, frames, s) for s in rest])
    wanted.append(
        [
            _own(ask, frames, source, decoder, whole=tiny_scale)
            for source in ours[1:]
            for decoder in source.decoders[::-1]
        ]
    )
    again = needed[-1]
    wanted.append(
        [
            replace(
                again,
                workload=replace(again.workload, name=f"{again.workload.name}-again"),
                part="again",
            )
        ]
    )
    # A headline that rests on complete clips is worth more than a further opponent.
    wanted += [[arm] for arm in complete]
    wanted.append([_torch(ask, frames, first, "torch-as-published")])
    wanted.append([_torch(ask, frames, first, "torch-compile")] if ask.compile else [])
    wanted.append([_compiled(ask, frames, s, "openvino") for s in same if ask.openvino])
    wanted.append(
        [_external(ask, frames, first, i, command) for i, command in enumerate(ask.external)]
    )
    return needed, wanted


def _torch(ask: Request, frames: int, like: Source, kind: str) -> PlannedArm:
    tiny = ask.scale == "tiny"
    work = Workload(
        name=f"vc2-{kind}-{frames}",
        kind=kind,
        bundle=None,
        model="vc2-tiny" if tiny else "vc2",
        steps=OPPONENT_STEPS,
        guidance=OPPONENT_GUIDANCE,
        passes_per_step=2,
        sampler="ddim",
        eta=1.0,
        frames=frames,
        height=like.sizes[0],
        width=like.sizes[1],
        precision="fp32",
        provider="torch cpu",
        threads=ask.threads,
        decoder="full",
        prompt=PROMPTS[ask.scale],
        seed=0,
        unet_passes=5 if tiny else 1,
        weights_seed=ask.weights_seed,
        decode_frames=min(DECODED, frames),
    )
    unet = {**like.unet, "num_res_blocks": 2, "middle_block": True}
    seconds = _seconds(ask, work, unet, like.text, like.decoder["full"])
    return PlannedArm(work, ask.rounds, seconds, 5.0 if tiny else LOAD["torch"], "opponent")


def _compiled(ask: Request, frames: int, source: Source, kind: str = "runtime") -> PlannedArm:
    """VideoCrafter2 as a bundle of our own exporter."""
    work = Workload(
        name=f"vc2-{kind}-{source.precision}-{frames}",
        kind=kind,
        bundle=source.path,
        model="vc2-tiny" if ask.scale == "tiny" else "vc2",
        steps=OPPONENT_STEPS,
        guidance=OPPONENT_GUIDANCE,
        passes_per_step=2,
        sampler="ddim",
        eta=source.eta,
        frames=frames,
        height=source.sizes[0],
        width=source.sizes[1],
        precision=source.precision,
        provider="CPU" if kind == "openvino" else "CPUExecutionProvider",
        threads=ask.threads,
        decoder="full",
        prompt=PROMPTS[ask.scale],
        seed=0,
        unet_passes=5 if ask.scale == "tiny" else 1,
        decode_frames=min(DECODED, frames),
    )
    seconds = _seconds(ask, work, source.unet, source.text, source.decoder["full"])
    return PlannedArm(work, ask.rounds, seconds, _load(source), "opponent")


def _own(ask: Request, frames: int, source: Source, decoder: str, *, whole: bool) -> PlannedArm:
    """Our own recipe with one of the bundle's decoders."""
    work = Workload(
        name=f"hummingbird-{source.precision}-{decoder}-{frames}",
        kind="runtime",
        bundle=source.path,
        model="07b-tiny" if ask.scale == "tiny" else "07b",
        steps=source.steps,
        guidance=source.guidance,
        passes_per_step=source.passes_per_step,
        sampler=source.sampler,
        eta=source.eta,
        frames=frames,
        height=source.sizes[0],
        width=source.sizes[1],
        precision=source.precision,
        provider="CPUExecutionProvider",
        threads=ask.threads,
        decoder=decoder,
        prompt=PROMPTS[ask.scale],
        seed=0,
        unet_passes=None if whole else 1,
        decode_frames=None if whole else min(DECODED, frames),
    )
    seconds = _seconds(ask, work, source.unet, source.text, source.decoder[decoder])
    return PlannedArm(work, ask.rounds, seconds, _load(source), "whole" if whole and
                      ask.scale == "full" else "ours")  # fmt: skip


def _external(
    ask: Request, frames: int, like: Source, number: int, command: tuple[str, ...]
) -> PlannedArm:
    """Another program that takes a prompt; how long it takes nobody knows beforehand."""
    base = _torch(ask, frames, like, "torch")
    work = replace(
        base.workload,
        name=f"external-{number}-{frames}",
        kind="external",
        command=command,
        unet_passes=None,
        decode_frames=None,
    )
    return PlannedArm(work, ask.rounds, 0.0, 0.0, "opponent")


def _seconds(ask: Request, work: Workload, unet: Any, text: Any, decoder: Any) -> float:
    """Predicted of one sample."""
    cell = 8
    height, width = work.height // cell, work.width // cell
    tokens = int(text["max_length"])
    one = unet_flops(unet, frames=work.frames, height=height, width=width, tokens=tokens)
    number = work.steps * work.passes_per_step if work.unet_passes is None else work.unet_passes
    engine, low = work.kind, "fp32" if work.precision.startswith("fp") else "int8"
    passes = number * one / SPEED[f"runtime {low}" if engine == "runtime" else engine]
    decoded = work.decode_frames or work.frames
    kind = "tiny" if work.decoder == "tiny" else "torch" if engine.startswith("torch") else low
    decoding = decoded * decoder_flops(decoder, height=height, width=width)
    reading = work.passes_per_step * text_flops(text) / SPEED["torch"]
    total = passes + decoding / SPEED[f"decoder {kind}"] + reading
    return total / GIGA / ask.speed


def _load(source: Source) -> float:
    return 2.0 + LOAD["runtime"] * source.size_bytes / GIGA


def _amount(work: Workload) -> str:
    """What one sample of a workload runs."""
    if work.unet_passes is None:
        return f"the whole clip, {work.steps * work.passes_per_step} passes"
    passes = "1 pass" if work.unet_passes == 1 else f"{work.unet_passes} passes"
    return f"text, {passes}, {work.decode_frames or work.frames} decoded frames"
