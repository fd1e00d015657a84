"""A request: every argument of a call, checked against what the bundle allows, defaults filled in.

None means the bundle's default, for the seed 0. Above what the model was trained on but allowed
gives a warning; beyond what is allowed is an error. Nothing heavy happens here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime import arguments, limits
from hummingbird_runtime.cancel import CancelToken
from hummingbird_runtime.errors import UsageError
from hummingbird_runtime.events import Step, Warning
from hummingbird_runtime.facts import ModelFacts
from hummingbird_runtime.manifest import Graph
from hummingbird_runtime.noise import SEED_LIMIT
from hummingbird_runtime.schedule import SchedulerConfig, max_steps

OutputType = Literal["video", "np", "latent"]
# rows of the table of sinusoids inside the network
FPS_LIMIT = 999


class Options(TypedDict, total=False):
    """Keyword arguments of ``pipe(prompt, ...)`` and ``pipe.stream(prompt, ...)``."""

    num_frames: int | None
    height: int | None
    """Pixels."""
    width: int | None
    """Pixels."""
    num_inference_steps: int | None
    guidance_scale: float | None
    """How closely to follow the prompt; w of a guidance-embedded model."""
    negative_prompt: str | None
    """What to avoid; only for models with classifier-free guidance."""
    seed: int | None
    """0..2^64-1; equal seeds give equal noise on every machine."""
    fps_condition: int | None
    """The frame rate told to the network; not the playback rate."""
    latents: NDArray[Any] | None
    """Initial noise, float [1, C, F, h, w], in place of the seed's."""
    prompt_embeds: NDArray[Any] | None
    """Text encoder output, float [1, L, D], in place of a prompt."""
    decoder: Literal["full", "tiny"] | None
    """None is full where the bundle has both."""
    upscale: bool | None
    """Whether frames are made ``UPSCALE`` times larger; None is yes where the bundle can."""
    output_type: OutputType
    """``video``, ``np`` (float32 [F, H, W, 3] in 0..1) or ``latent`` (float32 [1, C, F, h, w])."""
    callback_on_step_end: Callable[[Step], object] | None
    """Called after every step."""
    cancel: CancelToken | None
    checkpoint: str | os.PathLike[str] | None
    """File that keeps the latent of the last step: the same call goes on from it."""


@dataclass(frozen=True, eq=False)
class Request:
    """A checked call; the fields are those of ``Options``, defaults filled in, decoder by role."""

    prompt: str
    negative_prompt: str
    num_frames: int
    height: int
    width: int
    num_inference_steps: int
    guidance_scale: float
    seed: int
    fps_condition: int
    decoder: str
    upscale: bool
    output_type: str
    latents: NDArray[np.float32] | None
    prompt_embeds: NDArray[np.float32] | None


def check_request(
    facts: ModelFacts,
    scheduler: SchedulerConfig,
    *,
    prompt: object,
    graphs: Mapping[str, Graph],
    options: Options,
) -> tuple[Request, tuple[Warning, ...]]:
    """Check one call against a bundle.

    Args:
        facts: what the model was trained on and what is allowed.
        scheduler: limits the number of steps.
        prompt: the sentence, or None with ``prompt_embeds``.
        graphs: the bundle's graphs by role, for the choice of decoder and the embeddings' shape.
        options: the keyword arguments.

    Raises:
        UsageError: ``request.type``, ``request.unknown_option``, ``request.output_type``,
            ``request.prompt_embeds_and_prompt``, ``request.negative_prompt``, ``request.upscale``,
            ``prompt.type``.
        InputError: ``request.frames``, ``request.size``, ``request.steps``, ``request.guidance``,
            ``request.fps_condition``, ``request.seed``, ``request.latents``, ``request.decoder``,
            ``request.prompt_embeds``, ``request.not_finite``, ``prompt.encoding``,
            ``prompt.too_long``, ``bundle.no_such_graph``.
    """
    for name in options:
        limits.one_of("request.unknown_option", "option", name, Options.__annotations__)
    _check_hooks(options)
    warnings: list[Warning] = []
    frames = limits.frame_count(options.get("num_frames"), facts.frames, warnings)
    height = limits.side_length("height", options.get("height"), facts.height, warnings)
    width = limits.side_length("width", options.get("width"), facts.width, warnings)
    steps = limits.listed_number(
        "request.steps",
        "num_inference_steps",
        options.get("num_inference_steps"),
        facts.num_inference_steps,
        warnings,
        cap=max_steps(scheduler),
    )
    fps = limits.listed_number(
        "request.fps_condition",
        "fps_condition",
        options.get("fps_condition"),
        facts.fps_condition,
        warnings,
        cap=FPS_LIMIT,
    )
    seed = options.get("seed")
    seed = 0 if seed is None else arguments.whole_number("seed", seed)
    limits.check_range("request.seed", "seed", seed, (0, SEED_LIMIT - 1))
    latents = options.get("latents")
    if latents is not None:
        cells = (size // facts.vae_scale_factor for size in (height, width))
        shape = [1, facts.latent_channels, frames, *cells]
        latents = arguments.float_array("latents", latents, shape)
    text, embeds = _prompt_or_embeds(prompt, options.get("prompt_embeds"), graphs["unet"])
    scale = limits.guidance_scale(options.get("guidance_scale"), facts, warnings)
    output_type = limits.one_of(
        "request.output_type",
        "output_type",
        options.get("output_type", "video"),
        limits.OUTPUT_TYPES,
    )
    request = Request(
        prompt=text,
        negative_prompt=limits.negative_prompt(options.get("negative_prompt"), facts),
        num_frames=frames,
        height=height,
        width=width,
        num_inference_steps=steps,
        guidance_scale=scale,
        seed=seed,
        fps_condition=fps,
        decoder=limits.decoder_role(options.get("decoder"), graphs),
        upscale=limits.upscaling(options.get("upscale"), graphs, output_type),
        output_type=output_type,
        latents=latents,
        prompt_embeds=embeds,
    )
    return request, tuple(warnings)


def _check_hooks(options: Options) -> None:
    hook, cancel = options.get("callback_on_step_end"), options.get("cancel")
    if hook is not None and not callable(hook):
        raise arguments.wrong_type("callback_on_step_end", hook, "a function")
    if cancel is not None and not isinstance(cancel, CancelToken):
        raise arguments.wrong_type("cancel", cancel, "a CancelToken")


def _prompt_or_embeds(
    prompt: object, embeds: object, unet: Graph
) -> tuple[str, NDArray[np.float32] | None]:
    if embeds is None:
        return arguments.prompt_text("prompt", prompt), None
    if prompt is not None:
        raise UsageError(
            "request.prompt_embeds_and_prompt",
            "got both a prompt and prompt_embeds, expected one of them",
            hint="pass None as the prompt",
        )
    text_input = next(t.dims for t in unet.inputs if t.name == "encoder_hidden_states")
    return "", arguments.float_array("prompt_embeds", embeds, [1, *text_input[1:]])
