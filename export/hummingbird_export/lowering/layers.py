"""Single layers as graph nodes: linear, convolution, norms, activations, attention.

Each function appends what one torch module of ``hummingbird_train.models`` computes, in the form
asked for. Tokens are two-dimensional, (sequences * length, channels), throughout.
"""

from __future__ import annotations

import math

import onnx_ir as ir
from numpy import float32 as _F32
from torch import Tensor, nn

from hummingbird_export.lowering.builder import MICROSOFT, GraphBuilder
from hummingbird_export.lowering.form import Form


def linear(
    g: GraphBuilder, name: str, x: ir.Value, weight: Tensor, bias: Tensor | None
) -> ir.Value:
    """(m, c_in) -> (m, c_out); ``weight`` is torch's (c_out, c_in), stored transposed."""
    with g.scope(name):
        inputs = [x, g.weight("weight", weight.t())]
        if bias is not None:
            inputs.append(g.weight("bias", bias))
        return g.op("Gemm", *inputs)


def dense(g: GraphBuilder, name: str, x: ir.Value, module: nn.Module) -> ir.Value:
    """A torch Linear on (m, c_in)."""
    assert isinstance(module, nn.Linear)
    return linear(g, name, x, module.weight, module.bias)


def convolution(g: GraphBuilder, name: str, x: ir.Value, module: nn.Module) -> ir.Value:
    """A torch Conv2d on (n, c, h, w)."""
    assert isinstance(module, nn.Conv2d)
    assert isinstance(module.padding, tuple)
    pads = [*module.padding, *module.padding]
    return conv2d(g, name, x, module.weight, module.bias, pads=pads, strides=[*module.stride])


def conv2d(
    g: GraphBuilder,
    name: str,
    x: ir.Value,
    weight: Tensor,
    bias: Tensor | None,
    *,
    pads: list[int],
    strides: list[int],
) -> ir.Value:
    """A convolution with weight (c_out, c_in, kh, kw)."""
    with g.scope(name):
        inputs = [x, g.weight("weight", weight)]
        if bias is not None:
            inputs.append(g.weight("bias", bias))
        kernel = list(weight.shape[2:])
        return g.op("Conv", *inputs, kernel_shape=kernel, pads=pads, strides=strides)


def group_norm(g: GraphBuilder, name: str, x: ir.Value, module: nn.Module) -> ir.Value:
    """GroupNorm of (n, c, ...) with four dimensions: InstanceNormalization, then the affine part.

    Statistics run over each group of channels and everything behind them.
    """
    assert isinstance(module, nn.GroupNorm)
    groups, channels = module.num_groups, module.num_channels
    with g.scope(name):
        grouped = g.op("Reshape", x, g.constant([0, groups, -1]), name="Group")
        ones, zeros = (g.constant([value] * groups, _F32) for value in (1.0, 0.0))
        normal = g.op("InstanceNormalization", grouped, ones, zeros, epsilon=module.eps)
        normal = g.op("Reshape", normal, g.op("Shape", x), name="Ungroup")
        shape = (channels, 1, 1)
        scaled = g.op("Mul", normal, g.weight("weight", module.weight.view(shape)))
        return g.op("Add", scaled, g.weight("bias", module.bias.view(shape)))


def layer_norm(g: GraphBuilder, name: str, x: ir.Value, module: nn.Module) -> ir.Value:
    """LayerNorm over the channels of tokens."""
    assert isinstance(module, nn.LayerNorm)
    with g.scope(name):
        weight, bias = g.weight("weight", module.weight), g.weight("bias", module.bias)
        return g.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=module.eps)


def silu(g: GraphBuilder, form: Form, x: ir.Value) -> ir.Value:
    """X sigmoid(x)."""
    if form.fused:
        return g.op("QuickGelu", x, domain=MICROSOFT, alpha=1.0)
    return g.op("Mul", x, g.op("Sigmoid", x), name="SiLU")


def gelu(g: GraphBuilder, form: Form, x: ir.Value) -> ir.Value:
    """X (erf(x / sqrt 2) + 1) / 2, in the order that ONNX Runtime fuses."""
    if form.fused:
        return g.op("Gelu", x, domain=MICROSOFT)
    inner = g.op("Erf", g.op("Div", x, g.constant(math.sqrt(2.0), _F32), name="GeluDiv"))
    doubled = g.op("Mul", x, g.op("Add", inner, g.constant(1.0, _F32)), name="GeluMul")
    return g.op("Mul", doubled, g.constant(0.5, _F32), name="Gelu")


def attention_weights(g: GraphBuilder, form: Form, q: ir.Value, k: ir.Value, head: int) -> ir.Value:
    """softmax(q k^T / sqrt(head)): (n, heads, l, m).

    Args:
        g: graph under construction.
        form: the fused form takes ``k`` as (n, heads, m, head), any other as (n, heads, head, m).
        q: (n, heads, l, head).
        k: keys.
        head: channels of one head.
    """
    scale = 1.0 / math.sqrt(head)
    if form.fused:
        product = g.op("FusedMatMul", q, k, domain=MICROSOFT, transB=1, alpha=scale)
    else:
        product = g.op("MatMul", g.op("Mul", q, g.constant(scale, _F32), name="Scale"), k)
    return g.op("Softmax", product, axis=-1)
