"""Blocks of the video U-Net as graph nodes; one function per class of ``hummingbird_train.models``.

Features are (t, c, h, w), one clip, between blocks. Where a form asks for it, a block works on
pieces: of the frames where frames do not meet, of the cells where cells do not meet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir
from numpy import float32 as _F32
from torch import nn

from hummingbird_export.lowering.builder import MICROSOFT, GraphBuilder
from hummingbird_export.lowering.form import Form
from hummingbird_export.lowering.layers import (
    attention_weights,
    conv2d,
    convolution,
    dense,
    gelu,
    group_norm,
    layer_norm,
    linear,
    silu,
)
from hummingbird_export.lowering.sizes import Sizes
from hummingbird_train.models.attention import (
    GEGLU,
    Attention,
    FeedForward,
    SpatialTransformer,
    TemporalTransformer,
    TransformerBlock,
)
from hummingbird_train.models.blocks import Downsample, ResBlock, TemporalConvBlock, Upsample

Block = Callable[[ir.Value], ir.Value]


@dataclass(frozen=True)
class Scene:
    """What every block may read besides its features."""

    g: GraphBuilder
    form: Form
    sizes: Sizes
    emb: ir.Value
    """SiLU of the time embedding (1 or t, e)."""
    per_frame: bool
    """Whether ``emb`` has a row per frame."""
    context: ir.Value
    """Prompt (l, d)."""


def res_block(s: Scene, x: list[ir.Value], module: ResBlock, level: int) -> ir.Value:
    """Residual block per frame, then over time.

    Args:
        s: the graph and its conditioning.
        x: one or two (t, c, h, w), joined along channels.
        module: weights.
        level: of the pyramid.
    """
    g, pieces = s.g, s.form.frames_at(level)
    emb = dense(g, "emb_layers.1", s.emb, module.emb_layers[1])
    emb = g.op("Unsqueeze", emb, g.constant([2, 3]), name="Embedding")  # (1 or t, c, 1, 1)
    embs = s.sizes.split(emb, "t", pieces) if s.per_frame else [emb] * pieces
    inputs = zip(*(s.sizes.split(part, "t", pieces) for part in x), strict=True)
    done = []
    for parts, shift in zip(inputs, embs, strict=True):
        piece = parts[0] if len(parts) == 1 else g.op("Concat", *parts, axis=1, name="Join")
        h = silu(g, s.form, group_norm(g, "in_layers.0", piece, module.in_layers[0]))
        h = convolution(g, "in_layers.2", h, module.in_layers[2])
        h = g.op("Add", h, shift, name="AddEmbedding")
        h = silu(g, s.form, group_norm(g, "out_layers.0", h, module.out_layers[0]))
        h = convolution(g, "out_layers.3", h, module.out_layers[3])
        if isinstance(module.skip_connection, nn.Conv2d):
            piece = convolution(g, "skip_connection", piece, module.skip_connection)
        done.append(g.op("Add", piece, h, name="AddSkip"))
    h = s.sizes.join(done)
    with g.scope("temopral_conv"):
        return temporal_conv(s, h, module.temopral_conv, level)


def temporal_conv(s: Scene, x: ir.Value, module: TemporalConvBlock, level: int) -> ir.Value:
    """Four convolutions over time; (t, c, h, w) -> the same."""
    g = s.g
    clip = to_clip(g, x)
    h = clip
    for name in ("conv1", "conv2", "conv3", "conv4"):
        stage = getattr(module, name)
        with g.scope(name):
            h = silu(g, s.form, group_norm(g, "0", h, stage[0]))
            conv = stage[-1]
            place = str(len(stage) - 1)
            weight = conv.weight.squeeze(-1)  # (c, c, 3, 1)
            h = conv2d(g, place, h, weight, conv.bias, pads=[1, 0, 1, 0], strides=[1, 1])
    return to_frames(s, g.op("Add", clip, h, name="AddSkip"), level)


def to_clip(g: GraphBuilder, x: ir.Value) -> ir.Value:
    """(t, c, h, w) -> (1, c, t, h*w)."""
    cells = g.op("Reshape", x, g.constant([0, 0, -1]), name="Cells")
    clip = g.op("Transpose", cells, perm=[1, 0, 2], name="ToClip")
    return g.op("Unsqueeze", clip, g.constant([0]), name="Clip")


def to_frames(s: Scene, x: ir.Value, level: int) -> ir.Value:
    """(1, c, t, h*w) -> (t, c, h, w)."""
    clip = s.g.op("Squeeze", x, s.g.constant([0]), name="Unclip")
    frames = s.g.op("Transpose", clip, perm=[1, 0, 2], name="ToFrames")
    return s.g.op("Reshape", frames, s.sizes.shape(0, 0, ("h", level), ("w", level)), name="Frames")


def spatial_transformer(s: Scene, x: ir.Value, module: SpatialTransformer, level: int) -> ir.Value:
    """Cells attend to each other and to the prompt; (t, c, h, w) -> the same."""
    g = s.g
    channels = module.norm.num_channels
    keys = _prompt_keys(s, module)
    done = []
    for piece in s.sizes.split(x, "t", s.form.frames_at(level)):
        h = g.op("Reshape", group_norm(g, "norm", piece, module.norm), g.constant([0, 0, -1]))
        h = g.op("Transpose", h, perm=[0, 2, 1], name="ToTokens")  # (n, h*w, c)
        h = g.op("Reshape", h, g.constant([-1, channels]), name="Tokens")
        h = dense(g, "proj_in", h, module.proj_in)
        for index, block in enumerate(_blocks(module)):
            with g.scope(f"transformer_blocks.{index}"):
                h = _spatial_block(s, h, block, level, keys[index])
        h = dense(g, "proj_out", h, module.proj_out)
        h = g.op("Reshape", h, s.sizes.shape(-1, ("hw", level), channels), name="Frames")
        h = g.op("Transpose", h, perm=[0, 2, 1], name="ToFrames")
        h = g.op("Reshape", h, s.sizes.shape(0, 0, ("h", level), ("w", level)), name="Grid")
        done.append(g.op("Add", piece, h, name="AddSkip"))
    return s.sizes.join(done)


def _blocks(module: SpatialTransformer | TemporalTransformer) -> list[TransformerBlock]:
    return [block for block in module.transformer_blocks if isinstance(block, TransformerBlock)]


def _prompt_keys(s: Scene, module: SpatialTransformer) -> list[tuple[ir.Value, ir.Value]]:
    """Keys and values of the prompt for each block: (l, c), computed once for all frames."""
    found = []
    for index, block in enumerate(_blocks(module)):
        with s.g.scope(f"transformer_blocks.{index}", "attn2"):
            found.append(
                (
                    dense(s.g, "to_k", s.context, block.attn2.to_k),
                    dense(s.g, "to_v", s.context, block.attn2.to_v),
                )
            )
    return found


def _spatial_block(
    s: Scene,
    x: ir.Value,
    block: TransformerBlock,
    level: int,
    prompt: tuple[ir.Value, ir.Value],
) -> ir.Value:
    g = s.g
    y = layer_norm(g, "norm1", x, block.norm1)
    with g.scope("attn1"):
        x = g.op("Add", x, cell_attention(s, y, block.attn1, level), name="Add")
    y = layer_norm(g, "norm2", x, block.norm2)
    with g.scope("attn2"):
        x = g.op("Add", x, prompt_attention(s, y, prompt, block.attn2), name="Add")
    return _feed_forward(s, x, block)


def _feed_forward(s: Scene, x: ir.Value, block: TransformerBlock) -> ir.Value:
    y = layer_norm(s.g, "norm3", x, block.norm3)
    with s.g.scope("ff"):
        return s.g.op("Add", x, feed_forward(s, y, block.ff), name="Add")


def feed_forward(s: Scene, x: ir.Value, module: FeedForward) -> ir.Value:
    """GEGLU and back. Its projection is stored as two matrices: no copy to halve a result."""
    geglu = module.net[0]
    assert isinstance(geglu, GEGLU)
    projection = geglu.proj
    (value_w, gate_w), (value_b, gate_b) = projection.weight.chunk(2), projection.bias.chunk(2)
    with s.g.scope("net.0.proj"):
        value = linear(s.g, "value", x, value_w, value_b)
        gate = linear(s.g, "gate", x, gate_w, gate_b)
        hidden = s.g.op("Mul", value, gelu(s.g, s.form, gate), name="GEGLU")
    return dense(s.g, "net.2", hidden, module.net[2])


def cell_attention(s: Scene, x: ir.Value, module: Attention, level: int) -> ir.Value:
    """Self-attention among the cells of each frame; tokens (n*h*w, c) -> the same.

    The fused form takes the flash operator, which never holds the scores of all pairs of cells.
    """
    g, head, channels = s.g, module.head_channels, module.to_q.out_features
    heads, length = channels // head, ("hw", level)
    queries = _queries_keys_values(s, x, module)
    if s.form.fused:
        shape = s.sizes.shape(-1, length, channels)
        q, k, v = (g.op("Reshape", y, shape, name="Sequences") for y in queries)
        h = g.op("MultiHeadAttention", q, k, v, domain=MICROSOFT, num_heads=heads)
    else:
        shape = s.sizes.shape(-1, length, heads, head)
        h = _plain_attention(s, queries, shape, [0, 2, 1, 3], head)
        h = g.op("Transpose", h, perm=[0, 2, 1, 3], name="JoinHeads")
    h = g.op("Reshape", h, g.constant([-1, channels]), name="Tokens")
    return dense(g, "to_out.0", h, module.to_out[0])


def frame_attention(s: Scene, x: ir.Value, module: Attention) -> ir.Value:
    """Self-attention among the frames of each cell; tokens (t*cells, c) -> the same.

    Sequences are so short that plain products are faster than the flash operator.
    """
    g, head, channels = s.g, module.head_channels, module.to_q.out_features
    shape = s.sizes.shape("t", -1, channels // head, head)
    h = _plain_attention(s, _queries_keys_values(s, x, module), shape, [1, 2, 0, 3], head)
    h = g.op("Transpose", h, perm=[2, 0, 1, 3], name="JoinHeads")
    h = g.op("Reshape", h, g.constant([-1, channels]), name="Tokens")
    return dense(g, "to_out.0", h, module.to_out[0])


def _plain_attention(
    s: Scene, queries: list[ir.Value], shape: ir.Value, perm: list[int], head: int
) -> ir.Value:
    """softmax(q k^T / sqrt(head)) v -> (n, heads, l, head).

    Args:
        s: the graph.
        queries: tokens of queries, keys and values.
        shape: that splits tokens into axes of which the last is the head's.
        perm: those axes as (n, heads, l, head).
        head: channels of one head.
    """
    g = s.g
    # A product that transposes its second factor itself takes keys as they are.
    turned = perm if s.form.fused else [perm[0], perm[1], perm[3], perm[2]]
    q, k, v = (
        g.op("Transpose", g.op("Reshape", y, shape, name="Heads"), perm=order, name="SplitHeads")
        for y, order in zip(queries, (perm, turned, perm), strict=True)
    )
    return g.op("MatMul", attention_weights(g, s.form, q, k, head), v, name="Attend")


def _queries_keys_values(s: Scene, x: ir.Value, module: Attention) -> list[ir.Value]:
    return [dense(s.g, name, x, getattr(module, name)) for name in ("to_q", "to_k", "to_v")]


def prompt_attention(
    s: Scene, x: ir.Value, prompt: tuple[ir.Value, ir.Value], module: Attention
) -> ir.Value:
    """Tokens (m, c) of any number of frames attend to one prompt (l, c)."""
    g, head = s.g, module.head_channels
    q = dense(g, "to_q", x, module.to_q)
    channels = module.to_q.out_features
    heads = channels // head
    if s.form.fused:
        q, k, v = (g.op("Unsqueeze", y, g.constant([0]), name="One") for y in (q, *prompt))
        h = g.op("MultiHeadAttention", q, k, v, domain=MICROSOFT, num_heads=heads)
    else:
        h = _plain_attention(s, [q, *prompt], g.constant([1, -1, heads, head]), [0, 2, 1, 3], head)
        h = g.op("Transpose", h, perm=[0, 2, 1, 3], name="JoinHeads")
    h = g.op("Reshape", h, g.constant([-1, channels]), name="Tokens")
    return dense(g, "to_out.0", h, module.to_out[0])


def temporal_transformer(
    s: Scene, x: ir.Value, module: TemporalTransformer, level: int
) -> ir.Value:
    """Frames of each cell attend to each other; (t, c, h, w) -> the same."""
    g = s.g
    channels = module.norm.num_channels
    clip = to_clip(g, x)
    normal = group_norm(g, "norm", clip, module.norm)
    lines = g.op("Squeeze", normal, g.constant([0]), name="Lines")  # (c, t, h*w)
    done = []
    pieces = s.form.cells_at(level)
    inner = int(module.proj_in.weight.shape[0])  # wider than the channels in init_attn
    pieces = -(-pieces * inner // channels) if pieces > 1 else 1
    for piece in s.sizes.split(lines, ("hw", level), pieces, axis=2):
        # Tokens are (t * cells, c): an order that one moved axis gives, either way.
        h = g.op("Transpose", piece, perm=[1, 2, 0], name="ToTokens")
        h = g.op("Reshape", h, g.constant([-1, channels]), name="Tokens")
        h = _projection(g, "proj_in", h, module.proj_in)
        for index, block in enumerate(_blocks(module)):
            with g.scope(f"transformer_blocks.{index}"):
                h = _temporal_block(s, h, block)
        h = _projection(g, "proj_out", h, module.proj_out)
        h = g.op("Reshape", h, s.sizes.shape("t", -1, channels), name="Cells")
        done.append(g.op("Transpose", h, perm=[0, 2, 1], name="ToFrames"))  # (t, c, cells)
    h = s.sizes.join(done, axis=2)
    h = g.op("Reshape", h, s.sizes.shape(0, 0, ("h", level), ("w", level)), name="Grid")
    return g.op("Add", x, h, name="AddSkip")


def _projection(g: GraphBuilder, name: str, x: ir.Value, module: nn.Linear | nn.Conv1d) -> ir.Value:
    """A Linear, or the 1-tap Conv1d of init_attn, which is one."""
    weight = module.weight if module.weight.ndim == 2 else module.weight.squeeze(-1)
    return linear(g, name, x, weight, module.bias)


def _temporal_block(s: Scene, x: ir.Value, block: TransformerBlock) -> ir.Value:
    g = s.g
    for norm, name in ((block.norm1, "attn1"), (block.norm2, "attn2")):
        module = getattr(block, name)
        y = layer_norm(g, name.replace("attn", "norm"), x, norm)
        with g.scope(name):
            x = g.op("Add", x, frame_attention(s, y, module), name="Add")
    return _feed_forward(s, x, block)


def downsample(s: Scene, x: ir.Value, module: Downsample) -> ir.Value:
    """Half height and width."""
    return convolution(s.g, "op", x, module.op)


def upsample(s: Scene, x: ir.Value, module: Upsample, level: int) -> ir.Value:
    """Double height and width; ``level`` is the coarser one."""
    g = s.g
    scales = g.constant([1, 1, 2, 2], _F32)
    done = []
    for piece in s.sizes.split(x, "t", s.form.frames_at(level - 1)):
        h = g.op(
            "Resize",
            piece,
            None,
            scales,
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
        done.append(convolution(g, "conv", h, module.conv))
    return s.sizes.join(done)
