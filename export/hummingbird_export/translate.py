"""How three torch operators become ONNX, where torch's own translation is slower than it need be.

attention: one Transpose of the keys and one scaling, not four shape operators and two scalings.
gelu: written in the order that ONNX Runtime fuses into one kernel.
group_norm: InstanceNormalization over (n, groups, rest), then the affine part.
All three use standard operators of opset 18 only; the passed weights stay graph initializers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnxscript import FLOAT
from onnxscript import opset18 as op


def attention(
    query: FLOAT,
    key: FLOAT,
    value: FLOAT,
    attn_mask: FLOAT | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> FLOAT:
    """softmax(q k^T / sqrt(d)) v on (n, heads, length, d); causal for fixed lengths."""
    assert attn_mask is None, "no network here passes a mask"
    assert not enable_gqa, "every head has its own keys"
    width = query.shape[-1]
    factor = 1.0 / math.sqrt(width) if scale is None else scale
    scaled = op.Mul(query, _constant(np.array(factor, np.float32)))
    scores = op.MatMul(scaled, op.Transpose(key, perm=[0, 1, 3, 2]))
    if is_causal:
        length = query.shape[-2]
        assert isinstance(length, int), "a causal tower is exported at its full length"
        future = np.triu(np.full((length, length), -np.inf, np.float32), 1)
        scores = op.Add(scores, _constant(future))
    return op.MatMul(op.Softmax(scores, axis=-1), value)


def gelu(self: FLOAT, approximate: str = "none") -> FLOAT:
    """X (erf(x / sqrt 2) + 1) / 2."""
    assert approximate == "none", "the published networks use the exact GELU"
    inner = op.Erf(op.Div(self, _constant(np.array(math.sqrt(2.0), np.float32))))
    doubled = op.Mul(self, op.Add(inner, _constant(np.array(1.0, np.float32))))
    return op.Mul(doubled, _constant(np.array(0.5, np.float32)))


def group_norm(
    input: FLOAT,
    num_groups: int,
    weight: FLOAT,
    bias: FLOAT,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> FLOAT:
    """Normalise (n, c, ...) over each group of channels and everything behind them."""
    grouped = op.Reshape(input, _constant(np.array([0, num_groups, -1], np.int64)))
    ones, zeros = np.ones(num_groups, np.float32), np.zeros(num_groups, np.float32)
    normal = op.InstanceNormalization(grouped, _constant(ones), _constant(zeros), epsilon=eps)
    normal = op.Reshape(normal, op.Shape(input))
    column = _constant(np.array([-1] + [1] * (len(input.shape) - 2), np.int64))
    return op.Add(op.Mul(normal, op.Reshape(weight, column)), op.Reshape(bias, column))


def _constant(array: np.ndarray[Any, Any]) -> Any:
    return op.Constant(value=ir.tensor(array))


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.scaled_dot_product_attention.default: attention,
    torch.ops.aten.gelu.default: gelu,
    torch.ops.aten.group_norm.default: group_norm,
}
"""Operator of torch -> function that builds its graph."""
