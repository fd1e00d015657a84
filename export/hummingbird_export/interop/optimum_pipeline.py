"""A bundle as an optimum pipeline: ``ORTDiffusionPipeline`` for text to video.

The parts are optimum's own; the frame-rate condition goes to its U-Net in ``added_cond_kwargs``.
Checks, tokens, noise and schedule are the runtime's, so one seed gives one clip in both.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput, logging
from numpy.typing import NDArray
from onnxruntime import InferenceSession, SessionOptions
from optimum.onnxruntime import ORTDiffusionPipeline
from optimum.onnxruntime.utils import prepare_providers_and_provider_options

from hummingbird_export.interop.bundle_scheduler import BundleScheduler
from hummingbird_runtime import stages
from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.decode import decode_chunks, to_unit
from hummingbird_runtime.errors import InputError
from hummingbird_runtime.guidance import classifier_free_mix, guidance_embedding
from hummingbird_runtime.limits import one_of
from hummingbird_runtime.noise import noise
from hummingbird_runtime.open_graph import require_finite
from hummingbird_runtime.request import Request, check_request
from hummingbird_runtime.tokenizer import Tokenizer

ROLES = ("text_encoder", "unet", "vae_decoder")
OUTPUT_TYPES = ("np", "latent")

logger = logging.get_logger(__name__)


@dataclass
class TextToVideoOutput(BaseOutput):  # type: ignore[misc]
    """What a call gives."""

    frames: Any
    """float32 [1, F, H, W, 3] in 0..1 for output_type ``np``, else the latent [1, C, F, h, w]."""


class _Components(DiffusionPipeline):  # type: ignore[misc]
    """Names of the parts, in the form that optimum asks of a diffusers pipeline."""

    def __init__(
        self, vae: Any, text_encoder: Any, tokenizer: Any, unet: Any, scheduler: Any
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler
        )


class ORTTextToVideoPipeline(ORTDiffusionPipeline, _Components):  # type: ignore[misc]
    """Text to video with optimum's parts. ``from_pretrained`` makes one from a bundle folder.

    ``scheduler`` may be replaced by any scheduler of diffusers; it then draws its own noise from a
    torch generator seeded with ``seed``.
    """

    task = "text-to-video"
    main_input_name = "prompt"
    auto_model_class = _Components
    bundle: Bundle

    @classmethod
    def from_pretrained(
        cls,
        model_name_or_path: str | os.PathLike[str] | None = None,
        *,
        provider: str = "CPUExecutionProvider",
        providers: Sequence[str] | None = None,
        provider_options: Any = None,
        session_options: SessionOptions | None = None,
    ) -> Self:
        """Verify a bundle and open its graphs. Nothing is downloaded or exported.

        Args:
            model_name_or_path: bundle folder; None is the built-in bundle.
            provider: execution provider of ONNX Runtime.
            providers: several, in order of preference, in place of ``provider``.
            provider_options: as in optimum.
            session_options: of every graph.

        Raises:
            InputError, IntegrityError, ResourceError: ``bundle.*``, ``tokenizer.invalid``;
                ``interop.no_config`` when a graph has no config.json beside it.
        """
        bundle = Bundle.open(model_name_or_path)
        names, options = prepare_providers_and_provider_options(
            provider=provider, providers=providers, provider_options=provider_options
        )
        for role in ROLES:
            _need_config(bundle, role)
        parts: dict[str, Any] = {
            f"{role}_session": InferenceSession(
                os.fspath(bundle.path(role)),
                sess_options=session_options,
                providers=names,
                provider_options=options,
            )
            for role in ROLES
        }
        # binding would make the U-Net's output overwrite its input: the solvers need both
        parts["use_io_binding"] = False
        pipe = cls(
            **parts,
            scheduler=BundleScheduler(bundle.scheduler),
            tokenizer=Tokenizer.from_files(bundle.folder("tokenizer")),
        )
        pipe.bundle = bundle
        pipe.text_encoder.num_hidden_layers = 0  # the graph gives its last state alone
        return pipe

    def __call__(
        self,
        prompt: str | None = None,
        *,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        seed: int | None = None,
        fps_condition: int | None = None,
        latents: NDArray[Any] | None = None,
        prompt_embeds: NDArray[Any] | None = None,
        output_type: str = "np",
        callback_on_step_end: Callable[..., dict[str, Any]] | None = None,
    ) -> TextToVideoOutput:
        """Draw one clip. None everywhere is the bundle's default, as in the runtime.

        Args:
            prompt: a sentence.
            num_frames: F.
            height: pixels.
            width: pixels.
            num_inference_steps: steps of the scheduler.
            guidance_scale: how closely to follow the prompt.
            negative_prompt: only for models with classifier-free guidance.
            seed: of the runtime's noise, 0..2^64-1.
            fps_condition: frame rate told to the network.
            latents: initial noise, float [1, C, F, h, w], in place of the seed's.
            prompt_embeds: text encoder output, float [1, L, D], in place of a prompt.
            output_type: ``np`` for frames, ``latent`` for the final latent.
            callback_on_step_end: diffusers' hook: (pipe, i, t, {"latents": ..}) -> dict, whose
                ``latents`` go on.

        Raises:
            UsageError, InputError: ``request.*``, ``prompt.*``.
            ExecutionError: ``numeric.non_finite``.
        """
        facts = self.bundle.manifest.model
        one_of("request.output_type", "output_type", output_type, OUTPUT_TYPES)
        request, warnings = check_request(
            facts,
            self.bundle.scheduler,
            prompt=prompt,
            graphs=self.bundle.manifest.graphs,
            options={
                "num_frames": num_frames,
                "height": height,
                "width": width,
                "num_inference_steps": num_inference_steps,
                "guidance_scale": guidance_scale,
                "negative_prompt": negative_prompt,
                "seed": seed,
                "fps_condition": fps_condition,
                "latents": latents,
                "prompt_embeds": prompt_embeds,
            },
        )
        for warning in warnings:
            logger.warning(warning.text)

        passes = self._passes(request)
        x_t = torch.from_numpy(stages.initial_noise(request, facts))  # (1, c, f, h, w)
        x_t = x_t * self.scheduler.init_noise_sigma
        self.scheduler.set_timesteps(request.num_inference_steps)
        noise_source = self._noise_source(request)
        with self.progress_bar(total=request.num_inference_steps) as bar:
            for i, t in enumerate(self.scheduler.timesteps):
                scaled = self.scheduler.scale_model_input(x_t, t)
                outputs = [self.unet(scaled, t, **inputs)[0] for inputs in passes]
                if len(outputs) == 2:
                    conditional, unconditional = outputs
                    outputs = [
                        classifier_free_mix(unconditional, conditional, request.guidance_scale)
                    ]
                x_t = self.scheduler.step(outputs[0], t, x_t, **noise_source).prev_sample
                if callback_on_step_end is not None:
                    x_t = callback_on_step_end(self, i, t, {"latents": x_t}).get("latents", x_t)
                bar.update()

        final = x_t.numpy(force=True)
        require_finite("final latent", final)
        return TextToVideoOutput(x_t if output_type == "latent" else self._frames(final))

    def _passes(self, request: Request) -> list[dict[str, Any]]:
        """What the network gets beside the latent: for the prompt, then the negative prompt."""
        facts = self.bundle.manifest.model
        contexts = {"prompt": request.prompt_embeds} if request.prompt_embeds is not None else {}
        for name, text in stages.texts(request, facts).items():
            encoded = self.tokenizer.encode(text)
            for warning in stages.token_warnings(name, encoded, facts):
                logger.warning(warning.text)
            contexts[name] = self.text_encoder(encoded.ids).last_hidden_state
        conditions: dict[str, Any] = {
            "added_cond_kwargs": {"fps": torch.tensor([request.fps_condition])},
            "return_dict": False,
        }
        if facts.timestep_cond_dim is not None:
            conditions["timestep_cond"] = torch.from_numpy(
                guidance_embedding(request.guidance_scale, facts.timestep_cond_dim)
            )
        return [
            {**conditions, "encoder_hidden_states": torch.from_numpy(context)}  # (1, l, d)
            for context in contexts.values()
        ]

    def _frames(self, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        """Latents [1, C, F, h, w] to pixels [1, F, H, W, 3] in 0..1."""
        chunks = decode_chunks(
            lambda part: self.vae.decode(part, return_dict=False)[0],
            latents,
            scaling_factor=self.bundle.manifest.model.scaling_factor,
            chunk=self.bundle.manifest.model.decode_chunk,
        )
        return np.concatenate([to_unit(pixels) for _, pixels in chunks])[np.newaxis]

    def _noise_source(self, request: Request) -> dict[str, Any]:
        """The argument of ``scheduler.step`` that says where noise comes from."""
        if isinstance(self.scheduler, BundleScheduler):
            facts = self.bundle.manifest.model
            cells = (size // facts.vae_scale_factor for size in (request.height, request.width))
            shape = (request.num_frames, facts.latent_channels, *cells)
            return {"noise_fn": lambda i: torch.from_numpy(noise(request.seed, 1 + i, *shape))}
        if "generator" in inspect.signature(self.scheduler.step).parameters:
            return {"generator": torch.Generator().manual_seed(request.seed)}
        return {}


def _need_config(bundle: Bundle, role: str) -> None:
    folder = bundle.graph(role).path.rpartition("/")[0]
    if f"{folder}/config.json" not in bundle.manifest.files:
        raise InputError(
            "interop.no_config",
            f"bundle {bundle.manifest.name}: got no {folder}/config.json, optimum expects one "
            "beside every graph",
            hint="export the bundle again; `hummingbird export` writes it",
        )
