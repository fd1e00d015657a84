"""``hummingbird bench scaling [BUNDLE]``: how a bundle's time and memory grow on this machine."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hummingbird_bench.child import Child
from hummingbird_bench.environment import read_environment
from hummingbird_bench.graph_profiles import profile_clip
from hummingbird_bench.peaks import measure_peaks
from hummingbird_bench.run_folder import RunFolder, measurement_plan
from hummingbird_bench.run_verb import run_folder
from hummingbird_bench.sample import Sample
from hummingbird_bench.scaling import SCALING, Axis
from hummingbird_bench.sealed_document import write
from hummingbird_bench.verify_verb import render
from hummingbird_bench.workload import Workload
from hummingbird_runtime import __version__
from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.cli.parser import Parser, names, number_in, whole_number
from hummingbird_runtime.facts import ModelFacts, Side
from hummingbird_runtime.limits import check_range, frame_count, nearest_side, side_length

FRAMES = (8, 16, 26, 52, 104)
STEPS = (1, 2, 4, 8)
SCALES = (0.5, 1.0, 1.5, 2.0)
LIMIT_S = 3600.0
"""Seconds that one clip may take."""

Measure = Callable[[Workload, int], Sequence[Sample]]
"""(workload, steady clips) -> the samples of one fresh process."""


def base_workload(bundle: Bundle, *, decoder: str, threads: int) -> Workload:
    """The clip that a bundle draws by default, as a workload of our own runtime."""
    facts = bundle.manifest.model
    return Workload(
        name=bundle.manifest.name,
        kind="runtime",
        bundle=str(bundle.root),
        model="tiny",
        steps=facts.num_inference_steps.default,
        guidance=facts.guidance.default,
        passes_per_step=2 if facts.guidance.kind == "cfg" else 1,
        sampler=bundle.scheduler.sampler,
        eta=bundle.scheduler.eta,
        frames=facts.frames.default,
        height=facts.height.default,
        width=facts.width.default,
        precision=bundle.graph("unet").precision,
        provider="CPUExecutionProvider",
        threads=threads,
        decoder=decoder,
        prompt=(facts.vocabulary_examples or ("a hummingbird over a red flower",))[0],
        seed=0,
    )


def plan(
    bundle: Bundle,
    base: Workload,
    *,
    frames: Sequence[int] = (),
    sizes: Sequence[tuple[int, int]] = (),
    steps: Sequence[int] = (),
    threads: Sequence[int] = (),
) -> list[tuple[Axis, Workload]]:
    """Every point, one axis changed at a time; an empty axis takes what the bundle allows.

    Args:
        bundle: verified.
        base: what stays as it is.
        frames: of a clip.
        sizes: (height, width) in pixels.
        steps: of the solver.
        threads: of one run.

    Raises:
        InputError: ``request.frames``, ``request.size``, ``request.steps`` for what it does not
            allow.
    """
    facts = bundle.manifest.model
    axes: list[tuple[Axis, list[dict[str, Any]]]] = [
        ("frames", [{"frames": n} for n in frames or _within(FRAMES, facts.frames.allowed)]),
        ("size", [{"height": h, "width": w} for h, w in sizes or _default_sizes(facts)]),
        ("steps", [{"steps": n} for n in
                   steps or _within(STEPS, facts.num_inference_steps.allowed)]),
        ("threads", [{"threads": n} for n in threads or _default_threads()]),
    ]  # fmt: skip
    points = [(axis, dataclasses.replace(base, **change)) for axis, all_ in axes for change in all_]
    for _, work in points:
        frame_count(work.frames, facts.frames, [])
        side_length("height", work.height, facts.height, [])
        side_length("width", work.width, facts.width, [])
        low, high = facts.num_inference_steps.allowed
        check_range("request.steps", "steps", work.steps, (low, high))
    return points


def measure(work: Workload, clips: int) -> list[Sample]:
    """One fresh process: its first clip, then so many more.

    Raises:
        HummingbirdError: as ``Child``.
    """
    with (
        tempfile.TemporaryDirectory(prefix="hummingbird-scaling-") as folder,
        Child(work, Path(folder), "point", limit_s=LIMIT_S) as child,
    ):
        child.open()
        first = child.run(0, "first")
        return [first, *(child.run(1 + i, "steady") for i in range(clips))]


def scale(
    bundle: Bundle,
    points: Sequence[tuple[Axis, Workload]],
    *,
    base: Workload,
    clips: int,
    command: str,
    measure: Measure,
    store: RunFolder,
    profiled: bool = True,
    watch: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> dict[str, Any]:
    """Measure every point and give the raw part of a scaling document; equal workloads run once.

    A point whose samples the folder already has is not measured again.

    Args:
        bundle: for the title.
        points: of ``plan``.
        base: the workload whose graphs are profiled.
        clips: steady clips of a point.
        command: the command line, for the document.
        measure: runs one workload.
        store: keeps the samples of finished points.
        profiled: whether to run the profiler and measure the machine's peaks.
        watch: called before each with (done, total, what).
    """
    started, done = _now(), dict[Workload, Sequence[Sample]]()
    distinct = list(dict.fromkeys(work for _, work in points))
    for i, work in enumerate(distinct):
        size = f"{work.frames} × {work.height} × {work.width}"
        place = f"{size}, {work.steps} steps, {work.threads} threads"
        kept = [sample for sample in store.samples if sample.arm == place]
        if len(kept) <= clips:  # a point that was cut between two samples is measured again
            watch(i, len(distinct), place)
            for sample in measure(work, clips):
                store.append(dataclasses.replace(sample, arm=place))
            kept = [sample for sample in store.samples if sample.arm == place]
        done[work] = [dataclasses.replace(s, arm=work.name) for s in kept[-1 - clips :]]
    environment = read_environment()
    profiles = profile_clip(base, measure_peaks(base.threads)) if profiled else ()
    return {
        "schema": SCALING.schema,
        "title": f"How {bundle.manifest.name} grows",
        "made": {
            "version": __version__,
            "command": command,
            "started": started,
            "finished": _now(),
        },
        "environment": environment,
        "memory_bytes": environment["memory"]["total_bytes"] or 0,
        "points": [
            {
                "axis": axis,
                "workload": work.published(),
                "samples": [sample.to_json() for sample in done[work]],
            }
            for axis, work in points
        ],
        "profiles": [dataclasses.asdict(profile) for profile in profiles],
    }


def main(argv: Sequence[str]) -> int:
    """Run the verb; see its --help."""
    parsed = _parser().parse(argv)
    bundle = Bundle.open(parsed.bundle)
    base = base_workload(bundle, decoder=parsed.decoder, threads=parsed.base_threads)
    points = plan(
        bundle,
        base,
        frames=parsed.frames,
        sizes=parsed.sizes,
        steps=parsed.steps,
        threads=parsed.threads,
    )

    def watch(done: int, total: int, what: str) -> None:
        if not parsed.quiet:
            print(f"{done + 1}/{total}  {what}", file=sys.stderr, flush=True)

    command = shlex.join(["hummingbird", "bench", "scaling", *argv])
    files = {name: entry.sha256 for name, entry in bundle.manifest.files.items()}
    asked = measurement_plan([work for _, work in points], {"clips": parsed.clips, "files": files})
    with run_folder(parsed.folder, parsed.output, overwrite=parsed.force) as folder:
        raw = scale(
            bundle,
            points,
            base=base,
            clips=parsed.clips,
            command=command,
            measure=measure,
            store=RunFolder(folder, asked),
            profiled=parsed.profile,
            watch=watch,
        )
    write(SCALING, raw, parsed.output, overwrite=parsed.force)
    print(parsed.output, *render(parsed.output), sep="\n")
    return 0


def whole_numbers(text: str) -> tuple[int, ...]:
    """Numbers from 1 up separated by commas."""
    found = tuple(whole_number(word) for word in names(text))
    if min(found) < 1:
        raise argparse.ArgumentTypeError(f"got {text[:40]!r}, expected numbers from 1 up")
    return found


def pixel_sizes(text: str) -> tuple[tuple[int, int], ...]:
    """Sizes such as 64x64,96x128: height and width."""
    found = []
    for word in names(text):
        height, cross, width = word.partition("x")
        if not cross:
            raise argparse.ArgumentTypeError(f"got {word[:40]!r}, expected HEIGHTxWIDTH")
        found.append((whole_number(height), whole_number(width)))
    return tuple(found)


def _parser() -> Parser:
    parser = Parser(
        prog="hummingbird bench scaling",
        description="Measure time and memory against frames, size, steps and threads, and how near "
        "the operators come to this machine's limits.",
    )
    add = parser.add_argument
    add("bundle", nargs="?", type=Path, metavar="BUNDLE", help="default: the built-in one")
    add("-o", "--output", type=Path, default=Path("scaling.json"), metavar="FILE",
        help="the document (default %(default)s); pages beside it")  # fmt: skip
    add("--frames", type=whole_numbers, default=(), metavar="N,N", help="default: 8 to 104")
    add("--sizes", type=pixel_sizes, default=(), metavar="HxW,HxW",
        help="default: the trained size times 0.5 to 2, where allowed")  # fmt: skip
    add("--steps", type=whole_numbers, default=(), metavar="N,N", help="default: 1,2,4,8")
    add("--threads", type=whole_numbers, default=(), metavar="N,N", help="default: 1 to all cores")
    add("--base-threads", type=number_in(1, 1024), default=os.cpu_count() or 1, metavar="N",
        help="threads on the other axes (default %(default)s)")  # fmt: skip
    add("--decoder", choices=("full", "tiny"), default="full", help="default %(default)s")
    add("--clips", type=number_in(1, 100), default=3, metavar="N",
        help="steady clips of each point (default %(default)s)")  # fmt: skip
    add("--folder", type=Path, metavar="DIR",
        help="keep samples here; the same command goes on after a kill")  # fmt: skip
    add("--no-profile", dest="profile", action="store_false", help="leave out the roofline")
    add("--force", action="store_true", help="replace an existing document")
    add("-q", "--quiet", action="store_true", help="no progress on stderr")
    return parser


def _within(values: Sequence[int], allowed: tuple[int, int]) -> list[int]:
    return [value for value in values if allowed[0] <= value <= allowed[1]]


def _default_sizes(facts: ModelFacts) -> list[tuple[int, int]]:
    """The default size times ``SCALES``, to the nearest legal one."""

    def side(of: Side, factor: float) -> int:
        return nearest_side(round(of.default * factor), of)

    sizes = ((side(facts.height, f), side(facts.width, f)) for f in SCALES)
    return list(dict.fromkeys(sizes))


def _default_threads() -> list[int]:
    cores = os.cpu_count() or 1
    return sorted({*(n for n in (1, 2, 4, 8, 16, 32) if n <= cores), cores})


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
