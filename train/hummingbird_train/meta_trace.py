"""A network run once on the meta device: parameters, FLOPs, and the bytes that autograd keeps.

Nothing is allocated: the published 1.4 B U-Net is counted in seconds on any machine. Attention is
taken as GPUs compute it, in one piece that keeps queries, keys, values and the output.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from hummingbird_train.models.autoencoder import AutoencoderConfig, AutoencoderKL
from hummingbird_train.models.block_types import BLOCKS
from hummingbird_train.models.unet import UNetConfig
from hummingbird_train.models.weights import count_parameters, skeleton


@dataclass(frozen=True)
class Trace:
    """One evaluation of a network on the meta device."""

    parameters: int
    flop: int
    """Of a forward pass; a multiply-add is two."""
    kept: int
    """Bytes that backward needs."""
    kept_outside: int
    """Bytes of ``kept`` that no block made."""
    kept_inputs: int
    """Bytes of the blocks' inputs: what checkpointing keeps instead."""
    largest_block: int
    """Bytes of ``kept`` that one block made, at most."""
    largest_group: int
    """Parameters of the largest block, or of all that is in none: gathered as one when sharded."""


def trace(module: nn.Module, *arguments: Any, **options: Any) -> Trace:
    """Count a forward pass of a module that lies on the meta device, attention being fused."""
    own = {p.untyped_storage()._cdata for p in [*module.parameters(), *module.buffers()]}
    seen: dict[int, Tensor] = {}
    owner: list[str] = [""]
    bytes_of: dict[str, int] = {"": 0}
    inputs: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        key = tensor.untyped_storage()._cdata
        if key not in seen and key not in own:
            seen[key] = tensor  # held, so that no other storage takes the address
            size = tensor.untyped_storage().nbytes()
            bytes_of[owner[0]] = bytes_of.get(owner[0], 0) + size
        return tensor

    handles = []
    blocks = {n: m for n, m in module.named_modules() if isinstance(m, BLOCKS)}
    for name, block in blocks.items():

        def enter(_: nn.Module, given: tuple[Any, ...], name: str = name) -> None:
            owner[0] = name
            inputs[given[0].untyped_storage()._cdata] = given[0]

        def leave(*_: Any) -> None:
            owner[0] = ""

        handles += [block.register_forward_pre_hook(enter), block.register_forward_hook(leave)]
    fused = _FusedAttention()
    counter = FlopCounterMode(display=False)
    with counter, saved_tensors_hooks(pack, lambda t: t), fused:
        module(*arguments, **options)
    for handle in handles:
        handle.remove()
    groups = [count_parameters(block) for block in blocks.values()]
    groups.append(count_parameters(module) - sum(groups))
    return Trace(
        parameters=count_parameters(module),
        flop=counter.get_total_flops() + fused.flop,
        kept=sum(bytes_of.values()),
        kept_outside=bytes_of[""],
        kept_inputs=sum(t.untyped_storage().nbytes() for t in inputs.values()),
        largest_block=max((v for k, v in bytes_of.items() if k), default=0),
        largest_group=max(groups),
    )


class _FusedAttention(TorchFunctionMode):
    """Attention as GPUs compute it: nothing of length x length is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.flop = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        q, k, v = args[:3]
        rows = q.shape[:-1].numel()  # (n, heads, length)
        self.flop += 2 * rows * k.shape[-2] * (q.shape[-1] + v.shape[-1])
        return _Attention.apply(q, k, v)


class _Attention(torch.autograd.Function):
    """Keeps what flash attention keeps: queries, keys, values and the output."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        raise AssertionError("a trace has no backward")


@functools.lru_cache(maxsize=32)
def trace_unet(
    config: UNetConfig, frames: int, height: int, width: int, dtype: torch.dtype
) -> Trace:
    """One clip of latents [1, C, frames, height, width] through a U-Net."""
    unet = skeleton("unet", config).to(dtype)

    def floats(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    w = config.time_cond_proj_dim
    return trace(
        unet,
        floats(1, config.in_channels, frames, height, width),
        torch.empty(1, dtype=torch.int64, device="meta"),
        floats(1, 77, config.context_dim),
        timestep_cond=None if w is None else floats(1, w),
        fps=torch.empty(1, dtype=torch.int64, device="meta"),
    )


@functools.lru_cache(maxsize=8)
def trace_encoder(config: AutoencoderConfig, height: int, width: int, dtype: torch.dtype) -> Trace:
    """One frame [1, 3, height, width] through the encoder of an autoencoder."""
    vae = skeleton("autoencoder", config)
    assert isinstance(vae, AutoencoderKL)
    vae.to(dtype).forward = vae.encode  # type: ignore[method-assign]
    return trace(vae, torch.empty(1, 3, height, width, dtype=dtype, device="meta"))
