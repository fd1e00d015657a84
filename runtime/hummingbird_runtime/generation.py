"""One run from request to clip: tokens, context, noise, loop, frames, video. Read it top to bottom.

The stages themselves are in ``stages``; here is only their order, what is reported and what is
timed. Time that the caller spends between two events is not counted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime import stages
from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.cancel import CancelToken
from hummingbird_runtime.checkpoint import Checkpoint
from hummingbird_runtime.decode import to_uint8, to_unit
from hummingbird_runtime.events import Done, Event, Frames, Started, Step, Warning
from hummingbird_runtime.graphs import GraphPool
from hummingbird_runtime.manifest import UPSCALE, UPSCALER
from hummingbird_runtime.request import Request
from hummingbird_runtime.tokenizer import Tokenizer
from hummingbird_runtime.video import Video


class StageClock:
    """Seconds by stage; only time between ``restart`` and ``lap`` counts."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._mark = perf_counter()

    def restart(self) -> None:
        """Forget the time since the last mark."""
        self._mark = perf_counter()

    def lap(self, stage: str) -> float:
        """Book the time since the last mark on a stage and give it back."""
        now = perf_counter()
        lap, self._mark = now - self._mark, now
        self.seconds[stage] = self.seconds.get(stage, 0.0) + lap
        return lap


def generate(
    bundle: Bundle,
    graphs: GraphPool,
    tokenizer: Tokenizer,
    request: Request,
    *,
    warnings: Sequence[Warning],
    cancel: CancelToken,
    on_step: Callable[[Step], object] | None,
    decode_chunk: int,
    checkpoint: Checkpoint | None = None,
) -> Generator[Event, None, None]:
    """Yield the events of one run; the last is ``Done``, behind it the checkpoint is deleted.

    A consumer that fails or goes away at ``Done`` leaves the checkpoint, so nothing is lost.

    Args:
        bundle: facts of the model and its schedule.
        graphs: its graphs.
        tokenizer: its tokenizer.
        request: checked arguments.
        warnings: what the check of the request found.
        cancel: stops the run between and inside graphs.
        on_step: called after every step.
        decode_chunk: frames decoded at once.
        checkpoint: where the latent of each step is kept, and what an earlier run left there.

    Raises:
        HummingbirdError: ``runtime.cancelled``, ``numeric.non_finite``, ``runtime.decoder_shape``,
            ``runtime.upscaler_shape`` and what the session raises.
    """
    facts, clock, raised = bundle.manifest.model, StageClock(), list(warnings)
    saved = None if checkpoint is None else checkpoint.saved
    first = 0 if saved is None else saved.steps_done
    chunk = decode_chunk if saved is None else min(decode_chunk, saved.decode_chunk)
    yield Started(request, bundle.manifest.bundle_id, first)
    yield from warnings

    clock.restart()
    tokens = {name: tokenizer.encode(text) for name, text in stages.texts(request, facts).items()}
    clock.lap("text")
    for name, encoded in tokens.items():
        if name == "prompt":
            yield encoded
        for warning in stages.token_warnings(name, encoded, facts):
            raised.append(warning)
            yield warning

    latents = None if saved is None else saved.latent
    if first < request.num_inference_steps:
        clock.restart()
        contexts = {"prompt": request.prompt_embeds} if request.prompt_embeds is not None else {}
        if tokens:
            with graphs.stage("text_encoder", cancel) as encoder:
                contexts |= {name: stages.encode_text(encoder, ids) for name, ids in tokens.items()}
        clock.lap("text")
        with graphs.stage("unet", cancel) as unet:
            denoise = stages.make_denoiser(unet, request, facts, contexts)
            x_t = stages.initial_noise(request, facts) if latents is None else latents
            steps = stages.denoise_steps(
                denoise, x_t, bundle.scheduler, request, facts, first=first
            )
            for state in steps:
                step = Step(
                    i=state.index,
                    n=state.count,
                    t=state.timestep,
                    seconds=clock.lap("denoise"),
                    denoised=state.denoised,
                    latent_rgb=facts.latent_rgb,
                )
                latents = state.denoised
                if checkpoint is not None:
                    done = state.index + 1
                    kept = latents if done == state.count else state.x_t
                    failure = checkpoint.save(done, kept, chunk)
                    clock.lap("checkpoint")
                    if failure is not None and all(w.code != failure.code for w in raised):
                        raised.append(failure)
                        yield failure
                if on_step is not None:
                    on_step(step)
                yield step
                clock.restart()
    assert latents is not None, "a request has at least one step"
    if request.output_type == "latent":
        yield Done(latents)
        if checkpoint is not None:
            checkpoint.remove()
        return

    clock.restart()
    as_unit = request.output_type == "np"
    scale, last = (UPSCALE, "upscale") if request.upscale else (1, "decode")
    size = (request.num_frames, scale * request.height, scale * request.width, 3)
    frames: NDArray[np.uint8] = np.empty(size, np.uint8)
    unit: NDArray[np.float32] = np.empty(size if as_unit else 0, np.float32)
    with contextlib.ExitStack() as open_graphs:
        decoder = open_graphs.enter_context(graphs.stage(request.decoder, cancel))
        upscaler = (
            open_graphs.enter_context(graphs.stage(UPSCALER, cancel)) if request.upscale else None
        )
        for start, pixels in stages.decode_frames(decoder, latents, request, facts, chunk=chunk):
            clock.lap("decode")
            finished = stages.upscale_frames(upscaler, pixels) if upscaler else [(0, pixels)]
            for offset, shown in finished:
                part = slice(start + offset, start + offset + len(shown))
                frames[part] = to_uint8(shown)
                if as_unit:
                    unit[part] = to_unit(shown)
                clock.lap(last)
                yield Frames(part.start, frames[part].copy())
                clock.restart()
    clock.lap(last)
    result: Video | NDArray[np.float32] = unit
    if not as_unit:
        result = Video(
            frames,
            fps=facts.playback_fps,
            seed=request.seed,
            prompt=request.prompt,
            bundle_id=bundle.manifest.bundle_id,
            timings={**clock.seconds, "total": sum(clock.seconds.values())},
            warnings=tuple(raised),
        )
    yield Done(result)
    if checkpoint is not None:
        checkpoint.remove()
