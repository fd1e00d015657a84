"""Which cases of a graph are worth a probe: small sizes that the bundle allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hummingbird_runtime.facts import ModelFacts
from hummingbird_runtime.fixed_sizes import fixed_axes
from hummingbird_runtime.limits import nearest_side
from hummingbird_runtime.manifest import DECODERS, UPSCALER, Graph, Tensor
from hummingbird_runtime.probe_inputs import ProbeInput

UNET_SIZES = ((4, 16, 16), (8, 24, 32))
"""Frames, rows and columns of latents."""
CONTEXT = "encoder_hidden_states"
"""Input of the U-Net that takes a prompt's embedding."""

_TIMESTEPS = (519, 999)
_DECODED = (1, 16, 16)
_UPSCALED = (1, 4, 8)


def probe_cases(
    role: str, graph: Graph, facts: ModelFacts, *, tokens: int, vocabulary: int
) -> list[tuple[str, dict[str, ProbeInput]]]:
    """Name and inputs of every case of a graph: two for the U-Net where two sizes are allowed.

    The U-Net's last case is the first pass of a clip: it takes a prompt's embedding, which is
    stored. Precisions below float32 are calibrated on such, and lose more on noise in its place.

    Args:
        role: text_encoder, unet, a decoder or the upscaler; any other graph has no cases.
        graph: its inputs; sizes that are numbers there stay as they are.
        facts: allowed sizes, frame rate and guidance.
        tokens: length of a row of token ids.
        vocabulary: token ids are drawn below it.
    """
    if role == "text_encoder":
        spec = ProbeInput(_shape(graph.inputs[0], {"L": tokens}), below=vocabulary)
        return [(str(tokens), {graph.inputs[0].name: spec})]
    if role == "unet":
        fixed = fixed_axes(graph, "sample", "_CFhw")
        sizes = dict.fromkeys(_legal(size, facts, fixed) for size in UNET_SIZES)
        cases = [
            ("x".join(map(str, size)), _unet_inputs(graph.inputs, size, t, facts, tokens))
            for size, t in zip(sizes, _TIMESTEPS, strict=False)
        ]
        last = cases[-1][1]
        last[CONTEXT] = ProbeInput(last[CONTEXT].shape, stored=True)
        return cases
    if role in DECODERS.values():
        fixed = fixed_axes(graph, "latent_sample", "N_hw")
        _, h, w = _legal(_DECODED, facts, fixed)
        n = fixed.get("N", _DECODED[0])
        spec = ProbeInput((n, facts.latent_channels, h, w), normal=1 / facts.scaling_factor)
        return [(f"{n}x{h}x{w}", {"latent_sample": spec})]
    if role == UPSCALER:
        fixed = fixed_axes(graph, "sample", "N_HW")
        _, h, w = _legal(_UPSCALED, facts, {})
        cell, n = facts.vae_scale_factor, fixed.get("N", _UPSCALED[0])
        height, width = fixed.get("H", h * cell), fixed.get("W", w * cell)
        spec = ProbeInput((n, 3, height, width), normal=0.5)
        return [(f"{n}x{height}x{width}", {"sample": spec})]
    return []


def _legal(
    size: Sequence[int], facts: ModelFacts, fixed: Mapping[str, int]
) -> tuple[int, int, int]:
    """The allowed frames, rows and columns that are closest to those wanted."""
    frames = min(max(size[0], facts.frames.allowed[0]), facts.frames.allowed[1])
    cell = facts.vae_scale_factor
    h, w = (
        nearest_side(length * cell, side) // cell
        for length, side in zip(size[1:], (facts.height, facts.width), strict=True)
    )
    return fixed.get("F", frames), fixed.get("h", h), fixed.get("w", w)


def _unet_inputs(
    tensors: Sequence[Tensor],
    size: tuple[int, int, int],
    timestep: int,
    facts: ModelFacts,
    tokens: int,
) -> dict[str, ProbeInput]:
    free = dict(zip("Fhw", size, strict=True)) | {"L": tokens}
    constants = {"timestep": timestep, "fps": facts.fps_condition.default}
    inputs = {}
    for tensor in tensors:
        shape, name = _shape(tensor, free), tensor.name
        if name in constants:
            inputs[name] = ProbeInput(shape, constant=constants[name])
        elif name == "timestep_cond":
            inputs[name] = ProbeInput(shape, guidance=facts.guidance.default)
        else:
            inputs[name] = ProbeInput(shape, normal=1.0)
    return inputs


def _shape(tensor: Tensor, free: Mapping[str, int]) -> tuple[int, ...]:
    """Sizes of an input; a name that is none of the known ones is a batch of one."""
    return tuple(dim if isinstance(dim, int) else free.get(dim, 1) for dim in tensor.dims)
