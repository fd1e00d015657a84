"""The graphs of a bundle as torch modules with named inputs, and the signature of each.

A wrapper only renames: what a graph computes is decided by the model's own ``forward``. Names and
meaning are the bundle's contract; sizes in letters are chosen at run time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hummingbird_runtime.manifest import Tensor as TensorSpec
from hummingbird_train.models.autoencoder import AutoencoderKL
from hummingbird_train.models.text_encoder import TextEncoder
from hummingbird_train.models.tiny_decoder import TinyDecoder
from hummingbird_train.models.unet import VideoUNet
from hummingbird_train.models.upscaler import Upscaler

Feeds = dict[str, NDArray[np.float32] | NDArray[np.int64]]


@dataclass(frozen=True)
class Axis:
    """A size of a graph that is chosen at run time."""

    largest: int
    """Bound told to the tracer; the runtime has its own limits."""
    multiple_of: int = 1
    """The size must be a multiple of this."""


@dataclass(frozen=True)
class Signature:
    """Inputs, outputs and free sizes of one graph."""

    role: str
    """Key in the manifest, such as ``unet``: one of the runtime's ``manifest.ROLES``."""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    axes: Mapping[str, Axis] = field(default_factory=dict)
    """Free size -> its rule, for every letter in the inputs."""
    bounds: Mapping[str, int] = field(default_factory=dict)
    """int64 input -> exclusive upper bound of its values."""


class UNetGraph(nn.Module):
    """sample, timestep, encoder_hidden_states, fps -> out_sample."""

    def __init__(self, unet: VideoUNet) -> None:
        super().__init__()
        self.unet = unet

    def forward(
        self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, fps: Tensor
    ) -> Tensor:
        out: Tensor = self.unet(sample, timestep, encoder_hidden_states, fps=fps)
        return out


class GuidedUNetGraph(nn.Module):
    """sample, timestep, encoder_hidden_states, timestep_cond, fps -> out_sample."""

    def __init__(self, unet: VideoUNet) -> None:
        super().__init__()
        self.unet = unet

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        timestep_cond: Tensor,
        fps: Tensor,
    ) -> Tensor:
        out: Tensor = self.unet(
            sample, timestep, encoder_hidden_states, timestep_cond=timestep_cond, fps=fps
        )
        return out


class DecoderGraph(nn.Module):
    """latent_sample (already divided by the scaling factor) -> sample."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.post_quant_conv, self.decoder = vae.post_quant_conv, vae.decoder

    def forward(self, latent_sample: Tensor) -> Tensor:
        out: Tensor = self.decoder(self.post_quant_conv(latent_sample))
        return out


class TinyDecoderGraph(nn.Module):
    """latent_sample (already divided by the scaling factor) -> sample."""

    def __init__(self, decoder: TinyDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, latent_sample: Tensor) -> Tensor:
        out: Tensor = self.decoder(latent_sample)
        return out


class UpscalerGraph(nn.Module):
    """sample in [-1, 1] -> upscaled."""

    def __init__(self, upscaler: Upscaler) -> None:
        super().__init__()
        self.upscaler = upscaler

    def forward(self, sample: Tensor) -> Tensor:
        out: Tensor = self.upscaler(sample)
        return out


class EncoderGraph(nn.Module):
    """sample in [-1, 1] -> latent_sample: the posterior's mean, not scaled for the U-Net."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, sample: Tensor) -> Tensor:
        mean, _ = self.vae.encode(sample)
        out: Tensor = mean
        return out


class TextGraph(nn.Module):
    """input_ids -> last_hidden_state."""

    def __init__(self, text_encoder: TextEncoder) -> None:
        super().__init__()
        self.text_encoder = text_encoder

    def forward(self, input_ids: Tensor) -> Tensor:
        out: Tensor = self.text_encoder(input_ids)
        return out


def unet_graph(unet: VideoUNet, *, tokens: int) -> tuple[nn.Module, Signature]:
    """The U-Net's graph for prompts of ``tokens`` tokens; one clip per call.

    A model with a guidance embedding gets the input ``timestep_cond``, any other model does not.
    """
    config = unet.config
    guided = config.time_cond_proj_dim is not None
    inputs = [
        TensorSpec("sample", "float32", (1, config.in_channels, "F", "h", "w")),
        TensorSpec("timestep", "int64", ()),
        TensorSpec("encoder_hidden_states", "float32", (1, tokens, config.context_dim)),
        TensorSpec("fps", "int64", (1,)),
    ]
    if config.time_cond_proj_dim is not None:
        inputs.insert(3, TensorSpec("timestep_cond", "float32", (1, config.time_cond_proj_dim)))
    rows = unet.sinusoids.shape[0]
    side = Axis(largest=512, multiple_of=config.size_multiple)
    signature = Signature(
        role="unet",
        inputs=tuple(inputs),
        outputs=(TensorSpec("out_sample", "float32", (1, config.out_channels, "F", "h", "w")),),
        axes={"F": Axis(largest=104), "h": side, "w": side},
        bounds={"timestep": rows, "fps": rows},
    )
    module = GuidedUNetGraph(unet) if guided else UNetGraph(unet)
    return module.eval(), signature


def decoder_graph(vae: AutoencoderKL) -> tuple[nn.Module, Signature]:
    """The decoder's graph: a chunk of N frames, each on its own."""
    config = vae.config
    signature = _decoder_signature("vae_decoder", config.latent_channels, config.in_channels)
    return DecoderGraph(vae).eval(), signature


def tiny_decoder_graph(decoder: TinyDecoder) -> tuple[nn.Module, Signature]:
    """The tiny decoder's graph: names and sizes are the full one's."""
    config = decoder.config
    signature = _decoder_signature("vae_decoder_tiny", config.latent_channels, config.out_channels)
    return TinyDecoderGraph(decoder).eval(), signature


def _decoder_signature(role: str, latent_channels: int, channels: int) -> Signature:
    return Signature(
        role=role,
        inputs=(TensorSpec("latent_sample", "float32", ("N", latent_channels, "h", "w")),),
        outputs=(TensorSpec("sample", "float32", ("N", channels, "H", "W")),),
        axes={"N": Axis(largest=104), "h": Axis(largest=512), "w": Axis(largest=512)},
    )


def upscaler_graph(upscaler: Upscaler) -> tuple[nn.Module, Signature]:
    """The upscaler's graph: N frames, each on its own, to frames of ``config.scale`` times H, W."""
    channels = upscaler.config.image_channels
    side = Axis(largest=4096)
    signature = Signature(
        role="upscaler",
        inputs=(TensorSpec("sample", "float32", ("N", channels, "H", "W")),),
        outputs=(TensorSpec("upscaled", "float32", ("N", channels, "sH", "sW")),),
        axes={"N": Axis(largest=104), "H": side, "W": side},
    )
    return UpscalerGraph(upscaler).eval(), signature


def encoder_graph(vae: AutoencoderKL) -> tuple[nn.Module, Signature]:
    """The encoder's graph: N images, each on its own."""
    config = vae.config
    side = Axis(largest=4096, multiple_of=config.downscale)
    signature = Signature(
        role="vae_encoder",
        inputs=(TensorSpec("sample", "float32", ("N", config.in_channels, "H", "W")),),
        outputs=(TensorSpec("latent_sample", "float32", ("N", config.latent_channels, "h", "w")),),
        axes={"N": Axis(largest=104), "H": side, "W": side},
    )
    return EncoderGraph(vae).eval(), signature


def text_graph(text_encoder: TextEncoder) -> tuple[nn.Module, Signature]:
    """The text tower's graph: one prompt, padded to the tower's full length."""
    config = text_encoder.config
    signature = Signature(
        role="text_encoder",
        inputs=(TensorSpec("input_ids", "int64", (1, config.max_length)),),
        outputs=(TensorSpec("last_hidden_state", "float32", (1, config.max_length, config.width)),),
        bounds={"input_ids": config.vocab_size},
    )
    return TextGraph(text_encoder).eval(), signature


def example_feeds(signature: Signature, sizes: Mapping[str, int], *, seed: int = 0) -> Feeds:
    """Arrays that fit a signature: floats standard normal, integers uniform below their bound.

    Args:
        signature: the graph's inputs.
        sizes: a number for every free size.
        seed: the same seed gives the same arrays.
    """
    rng = np.random.default_rng(seed)
    feeds: Feeds = {}
    for spec in signature.inputs:
        shape = tuple(sizes[dim] if isinstance(dim, str) else dim for dim in spec.dims)
        if spec.dtype == "int64":
            feeds[spec.name] = rng.integers(signature.bounds[spec.name], size=shape)
        else:
            feeds[spec.name] = rng.standard_normal(shape, dtype=np.float32)
    return feeds


def run_module(module: nn.Module, feeds: Feeds) -> list[NDArray[np.float32]]:
    """Outputs of a wrapper for NumPy inputs, as the graph would give them."""
    tensors = {name: torch.from_numpy(np.asarray(array)) for name, array in feeds.items()}
    with torch.inference_mode():
        return [module(**tensors).numpy()]
