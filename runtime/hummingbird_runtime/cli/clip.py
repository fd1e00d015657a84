"""One clip, drawn and saved: the run's events become progress, warnings and a JSON document."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hummingbird_runtime.cancel import CancelToken
from hummingbird_runtime.cli.clip_job import ClipJob
from hummingbird_runtime.cli.native_output import native_output_on_stderr
from hummingbird_runtime.cli.progress import Progress
from hummingbird_runtime.cli.prompts import example_prompt, unknown_words
from hummingbird_runtime.cli.worker import run_cancellable
from hummingbird_runtime.errors import ExecutionError
from hummingbird_runtime.output import check_target

if TYPE_CHECKING:
    from hummingbird_runtime.events import Event
    from hummingbird_runtime.request import Options, Request
    from hummingbird_runtime.video import Video


@dataclass
class _Record:
    """What the events of one run said."""

    request: Request | None = None
    steps_done: int = 0
    """By an earlier run that was cut off."""
    video: Video | None = None
    """Saved."""
    drawn: float = 0.0
    """When it was drawn, on the clock of ``time.perf_counter``."""
    truncated: bool = False
    unknown: tuple[str, ...] = ()
    warnings: list[dict[str, str]] = field(default_factory=list)


def run_job(job: ClipJob) -> int:
    """Refuse a bad output, draw, save, print what was made.

    Raises:
        HummingbirdError: whatever went wrong; no output and no temporary file is left.
    """
    from hummingbird_runtime.writers import find_writer

    find_writer(job.output)
    check_target(job.output, overwrite=job.force)
    with native_output_on_stderr():
        document = run_cancellable(lambda token: _draw(job, token), timeout=job.timeout)
    print(json.dumps(document, ensure_ascii=False) if job.as_json else job.output)
    return 0


def _draw(job: ClipJob, token: CancelToken) -> dict[str, Any]:
    from hummingbird_runtime.pipeline import TextToVideoPipeline
    from hummingbird_runtime.placement import nodes

    progress = Progress(quiet=job.quiet)
    style, strength = job.style or (None, 1.0)
    started = time.perf_counter()
    with contextlib.closing(progress):
        progress.note("opening the bundle")
        with TextToVideoPipeline.from_pretrained(
            job.bundle,
            providers=job.providers,
            threads=job.threads,
            style=style,
            style_strength=strength,
            memory_limit=job.memory_limit and job.memory_limit * 10**6,
            preload=False,
        ) as pipe:
            facts = pipe.bundle.manifest.model
            prompt = job.prompt
            if prompt is None:
                prompt = example_prompt(facts.vocabulary_examples, job.options.get("seed") or 0)
            options: Options = {**job.options, "cancel": token}
            stream = pipe.stream(prompt, **options)  # refuses a bad request before graphs open
            if pipe.graphs.why:
                progress.keep(f"providers: {pipe.graphs.why}")
            pipe.load()
            loaded = time.perf_counter()
            token.raise_if_cancelled()
            record = _follow(job, stream, facts.vocabulary_examples, progress)
            graphs = pipe.graphs
        video, request = record.video, record.request
        if video is None or request is None:
            raise ExecutionError("internal.no_video", "the run ended without a video")
    saved = time.perf_counter()
    timings = {"load": loaded - started, **video.timings, "save": saved - record.drawn}
    timings["total"] = saved - started
    return {
        "path": job.output,
        "prompt": request.prompt,
        "seed": request.seed,
        "bundle_id": video.bundle_id,
        "frames": len(video.frames),
        "height": video.frames.shape[1],
        "width": video.frames.shape[2],
        "fps": video.fps,
        "resumed_steps": record.steps_done,
        "num_inference_steps": request.num_inference_steps,
        "guidance_scale": request.guidance_scale,
        "fps_condition": request.fps_condition,
        "decoder": "tiny" if request.decoder.endswith("tiny") else "full",
        "upscale": request.upscale,
        "style": style,
        "style_strength": None if style is None else strength,
        "truncated": record.truncated,
        "unknown_words": list(record.unknown),
        "warnings": record.warnings,
        "providers": list(graphs.providers),
        "nodes": {role: nodes(where) for role, where in graphs.placements.items()},
        "timings": {stage: round(seconds, 4) for stage, seconds in timings.items()},
    }


def _follow(
    job: ClipJob,
    events: Generator[Event, None, None],
    examples: tuple[str, ...],
    progress: Progress,
) -> _Record:
    from hummingbird_runtime.events import Done, Frames, Started, Step, Tokens, Warning
    from hummingbird_runtime.video import Video

    record = _Record()
    with contextlib.closing(events):
        for event in events:
            if isinstance(event, Started):
                record.request, record.steps_done = event.request, event.steps_done
            elif isinstance(event, Warning):
                record.warnings.append({"code": event.code, "text": event.text})
                progress.warn(event.code, event.text)
            elif isinstance(event, Tokens):
                record.truncated, record.unknown = event.truncated, event.unknown
                if event.unknown and job.strict_prompt:
                    raise unknown_words(event.unknown, examples)
            elif isinstance(event, Step):
                progress.step(event.i + 1, event.n, event.seconds)
            elif isinstance(event, Frames):
                progress.note(f"decoded {event.start + len(event.array)} frames")
            elif isinstance(event, Done) and isinstance(event.video, Video):
                record.drawn = time.perf_counter()
                progress.note("writing the clip")
                fps = job.fps or event.video.fps
                record.video = dataclasses.replace(event.video, fps=fps)
                record.video.save(job.output, overwrite=job.force)  # before the checkpoint goes
    return record
