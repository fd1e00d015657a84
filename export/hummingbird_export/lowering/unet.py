"""The video U-Net as an ONNX graph, written from its configuration and weights.

Nothing is traced: the graph comes out in a second at any size, in the form that a target runs best,
and every node and weight bears the published name of its module. That the graph computes what
``VideoUNet.forward`` computes is not assumed but measured at every export (``verify.py``).
"""

from __future__ import annotations

import onnx_ir as ir
from torch import nn

from hummingbird_export.lowering.blocks import (
    Scene,
    downsample,
    res_block,
    spatial_transformer,
    temporal_transformer,
    upsample,
)
from hummingbird_export.lowering.builder import GraphBuilder
from hummingbird_export.lowering.form import PORTABLE, Form
from hummingbird_export.lowering.layers import convolution, dense, group_norm, linear, silu
from hummingbird_export.lowering.place import place_planes
from hummingbird_export.lowering.sizes import Sizes
from hummingbird_export.wrappers import Signature
from hummingbird_train.models.attention import SpatialTransformer, TemporalTransformer
from hummingbird_train.models.blocks import Downsample, ResBlock, Stage, Stem, Upsample
from hummingbird_train.models.embeddings import EmbeddingMLP
from hummingbird_train.models.unet import VideoUNet


def lower_unet(unet: VideoUNet, signature: Signature, form: Form = PORTABLE) -> ir.Model:
    """Write the graph of a U-Net.

    Args:
        unet: in float32; its tensors are read when the model is saved.
        signature: ``wrappers.unet_graph``'s: names and sizes of inputs and outputs.
        form: how.

    Returns:
        A model of opset 18, with free sizes F, h and w.
    """
    g = GraphBuilder(signature.role)
    inputs = {spec.name: g.input(spec) for spec in signature.inputs}
    s = _scene(g, form, unet, inputs)
    h = g.op("Squeeze", inputs["sample"], g.constant([0]), name="sample/Squeeze")  # (c, t, h, w)
    h = g.op("Transpose", h, perm=[1, 0, 2, 3], name="sample/Frames")
    with g.scope("input_blocks.0"):
        h = _stage(s, [h], unet.input_blocks[0], 0)
    if unet.config.place_planes:
        with g.scope("place_planes"):
            h = g.op("Add", h, place_planes(s, unet.place_planes), name="Add")
    with g.scope("init_attn"):
        h = _stage(s, [h], unet.init_attn, 0)
    skips, level = [h], 0
    for index, stage in enumerate(unet.input_blocks[1:], start=1):
        with g.scope(f"input_blocks.{index}"):
            h = _stage(s, [h], stage, level)
        level += _ends_with(stage, Downsample)
        skips.append(h)
    if unet.config.middle_block:
        with g.scope("middle_block"):
            h = _stage(s, [h], unet.middle_block, level)
    for index, stage in enumerate(unet.output_blocks):
        with g.scope(f"output_blocks.{index}"):
            h = _stage(s, [h, skips.pop()], stage, level)
        level -= _ends_with(stage, Upsample)
    h = group_norm(g, "out.0", h, unet.out[0])
    with g.scope("out.1"):
        h = silu(g, form, h)
    h = convolution(g, "out.2", h, unet.out[2])
    h = g.op("Transpose", h, perm=[1, 0, 2, 3], name="out/Clip")
    h = g.op("Unsqueeze", h, g.constant([0]), name="out/Unsqueeze")
    return g.finish([(h, signature.outputs[0])])


def _scene(g: GraphBuilder, form: Form, unet: VideoUNet, inputs: dict[str, ir.Value]) -> Scene:
    config, table = unet.config, g.weight("sinusoids", unet.sinusoids)
    # reshaped as floats, behind the lookup: GPUs leave integers to the CPU
    row = g.op("Gather", table, inputs["timestep"], axis=0, name="timestep/Gather")
    emb = g.op("Reshape", row, g.constant([1, -1]), name="timestep/Reshape")
    if "timestep_cond" in inputs:
        weight = unet.time_cond_proj.weight
        projected = linear(g, "time_cond_proj", inputs["timestep_cond"], weight, None)
        emb = g.op("Add", emb, projected, name="time_cond_proj/Add")
    emb = _mlp(g, form, "time_embed", emb, unet.time_embed)
    fps = g.op("Gather", table, inputs["fps"], axis=0, name="fps/Gather")
    emb = g.op("Add", emb, _mlp(g, form, "fps_embedding", fps, unet.fps_embedding), name="fps/Add")
    hidden = inputs["encoder_hidden_states"]
    context = g.op("Squeeze", hidden, g.constant([0]), name="context/Squeeze")
    sizes = Sizes(g, inputs["sample"])
    if config.pooled_text_embedding:
        pooled = g.op("ReduceMean", hidden, g.constant([1]), keepdims=0, name="text/Mean")
        pooled = _mlp(g, form, "text_embedding", pooled, unet.text_embedding)
        emb = g.op("Add", emb, pooled, name="text/Add")
    if config.frame_embedding:
        frames = g.op(
            "Slice", table, g.constant([0]), sizes.size("t"), g.constant([0]), name="frames/Slice"
        )
        frames = _mlp(g, form, "frame_embedding", frames, unet.frame_embedding)
        emb = g.op("Add", emb, frames, name="frames/Add")
    with g.scope("emb"):
        emb = silu(g, form, emb)
    return Scene(g, form, sizes, emb, config.frame_embedding, context)


def _mlp(g: GraphBuilder, form: Form, name: str, x: ir.Value, module: EmbeddingMLP) -> ir.Value:
    with g.scope(name):
        h = silu(g, form, dense(g, "0", x, module[0]))
        return dense(g, "2", h, module[2])


def _stage(s: Scene, x: list[ir.Value], stage: Stage | nn.Module, level: int) -> ir.Value:
    """One entry of the pyramid; the first block joins the features and the skip."""
    assert isinstance(stage, Stage)
    for index, module in enumerate(stage):
        with s.g.scope(str(index)):
            x = [_block(s, x, module, level)]
    return x[0]


def _ends_with(stage: nn.Module, kind: type[nn.Module]) -> bool:
    return isinstance(list(stage.children())[-1], kind)


def _block(s: Scene, x: list[ir.Value], module: nn.Module, level: int) -> ir.Value:
    if isinstance(module, ResBlock):
        return res_block(s, x, module, level)
    (h,) = x
    match module:
        case Stem():
            return convolution(s.g, "", h, module)  # the stem is the convolution itself
        case SpatialTransformer():
            return spatial_transformer(s, h, module, level)
        case TemporalTransformer():
            return temporal_transformer(s, h, module, level)
        case Downsample():
            return downsample(s, h, module)
        case Upsample():
            return upsample(s, h, module, level)
    raise AssertionError(f"no lowering for {type(module).__name__}")
