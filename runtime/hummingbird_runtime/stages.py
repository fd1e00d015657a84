"""The stages of a run as plain functions; ``generation`` puts them in order.

Each takes open graphs as functions of arrays, so it can be read, tested and reused alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.decode import decode_chunks, upscale_chunks
from hummingbird_runtime.errors import ExecutionError
from hummingbird_runtime.events import Warning
from hummingbird_runtime.facts import ModelFacts
from hummingbird_runtime.guidance import classifier_free_mix, guidance_embedding
from hummingbird_runtime.manifest import UPSCALE
from hummingbird_runtime.noise import noise
from hummingbird_runtime.open_graph import Graph, require_finite
from hummingbird_runtime.request import Request
from hummingbird_runtime.sampler import StepState, sample
from hummingbird_runtime.schedule import SchedulerConfig
from hummingbird_runtime.tokenizer import Tokens

Array = NDArray[np.float32]

UPSCALE_CHUNK = 4
"""Frames upscaled at once: enough to keep the cores busy, few enough to keep memory flat."""


def texts(request: Request, facts: ModelFacts) -> dict[str, str]:
    """What the text encoder must read, by name: the prompt, for cfg models the negative prompt."""
    wanted = {"prompt": request.prompt} if request.prompt_embeds is None else {}
    if facts.guidance.kind == "cfg":
        wanted["negative_prompt"] = request.negative_prompt
    return wanted


def token_warnings(name: str, tokens: Tokens, facts: ModelFacts) -> Iterator[Warning]:
    """What of the prompt, or of another text called ``name``, the model will not see."""
    if tokens.truncated:
        read = tokens.ids.shape[1]
        text = f"{name} has {tokens.num_tokens} tokens, the model reads {read}: the end is cut off"
        yield Warning("prompt.truncated", text)
    if tokens.unknown:
        ignored = ", ".join(tokens.unknown)
        example = f"; try: {facts.vocabulary_examples[0]}" if facts.vocabulary_examples else ""
        yield Warning(
            "prompt.unknown_words", f"{name} has words the model ignores: {ignored}{example}"
        )


def encode_text(encoder: Graph, tokens: Tokens) -> Array:
    """Token ids to the network's context: float32 [1, L, D]."""
    return encoder("text embedding", {"input_ids": tokens.ids})


def make_denoiser(
    unet: Graph, request: Request, facts: ModelFacts, contexts: Mapping[str, Array]
) -> Callable[[Array, int], Array]:
    """The function (x_t, t) -> network output that the solvers call.

    Args:
        unet: the network.
        request: guidance scale and frame-rate condition.
        facts: the kind of guidance.
        contexts: float32 [1, L, D] by name: ``prompt``, and ``negative_prompt`` for
            classifier-free guidance, which runs the network twice per step.
    """
    inputs: dict[str, NDArray[np.float32] | NDArray[np.int64]] = {
        "fps": np.array([request.fps_condition], np.int64)
    }
    if facts.timestep_cond_dim is not None:
        inputs["timestep_cond"] = guidance_embedding(
            request.guidance_scale, facts.timestep_cond_dim
        )

    def predict(x_t: Array, t: int, text: Array) -> Array:
        timestep = np.array(t, np.int64)
        feeds = {**inputs, "sample": x_t, "timestep": timestep, "encoder_hidden_states": text}
        return unet(f"network output at timestep {t}", feeds)

    def denoise(x_t: Array, t: int) -> Array:
        conditional = predict(x_t, t, contexts["prompt"])
        if "negative_prompt" not in contexts:
            return conditional
        unconditional = predict(x_t, t, contexts["negative_prompt"])
        return classifier_free_mix(unconditional, conditional, request.guidance_scale)

    return denoise


def initial_noise(request: Request, facts: ModelFacts) -> Array:
    """The given latents, or stream 0 of the seed: float32 [1, C, F, h, w]."""
    return request.latents if request.latents is not None else _noise(request, facts, 0)


def denoise_steps(
    denoise: Callable[[Array, int], Array],
    x_T: Array,
    scheduler: SchedulerConfig,
    request: Request,
    facts: ModelFacts,
    *,
    first: int = 0,
) -> Iterator[StepState]:
    """The solver's steps, each checked: noise on leaving step i is stream 1 + i of the seed.

    Args:
        denoise: the network.
        x_T: initial noise, or the latent that enters step ``first``.
        scheduler: of the bundle.
        request: steps and seed.
        facts: of the bundle.
        first: 0-based step to begin with.

    Raises:
        ExecutionError: ``numeric.non_finite``, naming the step.
    """
    count = request.num_inference_steps
    steps = sample(
        denoise, x_T, scheduler, count, lambda i: _noise(request, facts, 1 + i), first=first
    )
    while True:
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below
            state = next(steps, None)
        if state is None:
            return
        require_finite(f"latent after step {state.index + 1} of {count}", state.x_t)
        yield state


def decode_frames(
    decoder: Graph, latents: Array, request: Request, facts: ModelFacts, *, chunk: int
) -> Iterator[tuple[int, Array]]:
    """Decoded chunks of ``chunk`` frames: (index of the first, float32 [n, H, W, 3] in [-1, 1]).

    Raises:
        ExecutionError: ``runtime.decoder_shape`` when the frames have another size than asked.
    """
    chunks = decode_chunks(
        lambda part: decoder("decoded frames", {"latent_sample": part}),
        latents,
        scaling_factor=facts.scaling_factor,
        chunk=chunk,
        whole=decoder.fixed_first_size("latent_sample") is not None,
    )
    for start, pixels in chunks:
        count = min(chunk, request.num_frames - start)
        expected = (count, request.height, request.width, 3)
        if pixels.shape != expected:
            raise ExecutionError(
                "runtime.decoder_shape",
                f"decoded frames, got {list(pixels.shape)}, expected {list(expected)}",
                hint="the bundle's decoder does not fit its vae_scale_factor; export it again",
            )
        yield start, pixels


def upscale_frames(upscaler: Graph, pixels: Array) -> Iterator[tuple[int, Array]]:
    """Larger frames by chunks: (index of the first within ``pixels``, float32 [n, sH, sW, 3]).

    Args:
        upscaler: the graph.
        pixels: decoded frames, float32 [n, H, W, 3].

    Raises:
        ExecutionError: ``runtime.upscaler_shape`` when the frames are not ``UPSCALE`` times larger.
    """
    fixed = upscaler.fixed_first_size("sample")
    chunk = fixed or UPSCALE_CHUNK
    height, width = UPSCALE * pixels.shape[1], UPSCALE * pixels.shape[2]
    chunks = upscale_chunks(
        lambda part: upscaler("upscaled frames", {"sample": part}),
        pixels,
        chunk=chunk,
        whole=fixed is not None,
    )
    for start, larger in chunks:
        expected = (min(chunk, len(pixels) - start), height, width, 3)
        if larger.shape != expected:
            raise ExecutionError(
                "runtime.upscaler_shape",
                f"upscaled frames, got {list(larger.shape)}, expected {list(expected)}",
                hint=f"the bundle's upscaler must enlarge {UPSCALE} times; export it again",
            )
        yield start, larger


def _noise(request: Request, facts: ModelFacts, stream: int) -> Array:
    cells = (size // facts.vae_scale_factor for size in (request.height, request.width))
    return noise(request.seed, stream, request.num_frames, facts.latent_channels, *cells)
