"""The networks of one bundle, compiled one after the other in the order that quality needs.

Prompts give embeddings, embeddings and the U-Net give latents, latents give frames: what one graph
makes in float32 is what the next is calibrated and judged on.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hummingbird_export.compile import CompiledGraph, Job, compile_graph
from hummingbird_export.gates import CASES
from hummingbird_export.precision import FLOATS, STORED, rounding_error
from hummingbird_export.quality import (
    DecoderJudge,
    Judge,
    TextJudge,
    UNetJudge,
    example_prompts,
)
from hummingbird_export.trajectory import Case, Settings
from hummingbird_export.wrappers import (
    Signature,
    decoder_graph,
    encoder_graph,
    text_graph,
    tiny_decoder_graph,
    unet_graph,
    upscaler_graph,
)
from hummingbird_runtime.errors import ExecutionError
from hummingbird_runtime.facts import ModelFacts
from hummingbird_runtime.manifest import Graph, Precision
from hummingbird_runtime.probe_cases import CONTEXT, probe_cases
from hummingbird_runtime.schedule import SchedulerConfig
from hummingbird_runtime.tokenizer import Tokenizer
from hummingbird_train.models.autoencoder import AutoencoderKL
from hummingbird_train.models.text_encoder import TextEncoder
from hummingbird_train.models.tiny_decoder import TinyDecoder
from hummingbird_train.models.unet import VideoUNet
from hummingbird_train.models.upscaler import Upscaler

Network = VideoUNet | AutoencoderKL | TextEncoder | TinyDecoder | Upscaler

STEPS = 4
"""Of the clips that a U-Net is judged by."""

FEW_CELLS = 4096
"""A default clip of more latent cells is judged at a smaller size."""


@dataclass
class Subject:
    """What the judges need to know of the model."""

    facts: ModelFacts
    scheduler: SchedulerConfig
    tokenizer: Tokenizer
    text_encoder: TextEncoder
    force: bool = False
    """Whether a missed gate of the U-Net is only told."""

    def prompts(self) -> list[NDArray[np.int64]]:
        """Token ids [1, L] of ``CASES`` prompts of the model's own vocabulary."""
        return [self.tokenizer.encode(text).ids for text in example_prompts(self.facts, CASES)]

    def embed(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """The prompt's embedding [1, L, D], by torch."""
        with torch.inference_mode():
            embedding: NDArray[np.float32] = self.text_encoder(torch.from_numpy(ids)).numpy()
        return embedding


def sampling_settings(
    facts: ModelFacts, scheduler: SchedulerConfig, *, negative: NDArray[np.float32]
) -> Settings:
    """How clips are sampled for calibration and gates.

    At the default size, or a smaller one where that is large.

    Args:
        facts: of the bundle, its fewest frames included.
        scheduler: of the model.
        negative: embedding of the empty prompt, for two-pass guidance.
    """
    cell = facts.vae_scale_factor
    frames, height, width = (
        facts.frames.default,
        facts.height.default // cell,
        facts.width.default // cell,
    )
    if frames * height * width > FEW_CELLS:
        frames = max(8, facts.frames.allowed[0])
        height = width = 2 * facts.height.multiple_of // cell
    return Settings(
        scheduler=scheduler,
        latent=(facts.latent_channels, frames, height, width),
        steps=STEPS,
        guidance=facts.guidance.default,
        guidance_dim=facts.timestep_cond_dim,
        negative=negative if facts.guidance.kind == "cfg" else None,
        fps=facts.fps_condition.default,
    )


def compile_networks(
    job: Job,
    networks: Mapping[str, Network],
    plan: Mapping[str, Precision],
    subject: Subject,
) -> dict[str, tuple[CompiledGraph, Signature]]:
    """Write every graph of a bundle.

    Args:
        job: bundle and target.
        networks: by role; the U-Net before the decoder that is judged on its latents.
        plan: precision by role.
        subject: for calibration, gates and probes.
    """
    compiled: dict[str, tuple[CompiledGraph, Signature]] = {}
    latents: Sequence[NDArray[np.float32]] = ()
    for role, network in networks.items():
        precision = plan[role]
        judge = _judge(role, network, precision, subject, job, latents)
        graph, signature = _compile(job, role, network, precision, subject, judge)
        if isinstance(judge, UNetJudge):
            latents = judge.latents
        compiled[role] = (graph, signature)
    return compiled


def _judge(
    role: str,
    network: Network,
    precision: Precision,
    subject: Subject,
    job: Job,
    latents: Sequence[NDArray[np.float32]],
) -> Judge | None:
    if precision in FLOATS:
        return None
    if isinstance(network, TextEncoder):
        return TextJudge(subject.prompts())
    if isinstance(network, VideoUNet):
        cases = [Case(subject.embed(ids), seed) for seed, ids in enumerate(subject.prompts())]
        nothing = subject.embed(subject.tokenizer.encode("").ids)
        settings = sampling_settings(subject.facts, subject.scheduler, negative=nothing)
        return UNetJudge(cases, settings, force=subject.force)
    return DecoderJudge([latent / subject.facts.scaling_factor for latent in latents])


def _compile(
    job: Job,
    role: str,
    network: Network,
    precision: Precision,
    subject: Subject,
    judge: Judge | None,
) -> tuple[CompiledGraph, Signature]:
    exact = STORED[precision](network) if precision in STORED else network
    tokens = subject.text_encoder.config.max_length
    module, signature = _graph_of(role, exact, tokens)
    draft = Graph(f"{role}/model.onnx", 18, signature.inputs, signature.outputs, ())
    vocabulary = subject.text_encoder.config.vocab_size
    probes = probe_cases(role, draft, subject.facts, tokens=tokens, vocabulary=vocabulary)
    try:
        compiled = compile_graph(
            job, exact, module, signature, precision, probes=probes,
            arrays={CONTEXT: subject.embed(subject.prompts()[0])}, judge=judge,
        )  # fmt: skip
    except ExecutionError as error:
        if error.code != "export.quality" or role == "unet":
            raise
        job.note(f"{error}; {role} stays in fp16-storage")
        shutil.rmtree(job.bundle / role)
        return _compile(job, role, network, "fp16-storage", subject, None)
    if precision in STORED:
        moved = rounding_error(network, exact)
        parity = {**compiled.graph.parity, "weights_relative_l2": moved}
        compiled = replace(compiled, graph=replace(compiled.graph, parity=parity))
    return compiled, signature


def _graph_of(role: str, network: Network, tokens: int) -> tuple[nn.Module, Signature]:
    if isinstance(network, VideoUNet):
        return unet_graph(network, tokens=tokens)
    if isinstance(network, TextEncoder):
        return text_graph(network)
    if isinstance(network, TinyDecoder):
        return tiny_decoder_graph(network)
    if isinstance(network, Upscaler):
        return upscaler_graph(network)
    return encoder_graph(network) if role == "vae_encoder" else decoder_graph(network)
