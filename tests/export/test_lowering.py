"""U-Nets written as graphs: every block and the whole network against torch, names and forms."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import lowered_networks as nets
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from lowered_networks import CONFIGS, FORMS
from torch import nn

from hummingbird_export.lowering import blocks
from hummingbird_export.lowering.builder import GraphBuilder
from hummingbird_export.lowering.form import PORTABLE, Form
from hummingbird_export.lowering.sizes import Sizes
from hummingbird_export.random_models import randomize
from hummingbird_export.storage import save_graph
from hummingbird_export.targets import STANDARD
from hummingbird_export.trace import operators
from hummingbird_export.verify import relative_l2
from hummingbird_runtime.errors import ExecutionError
from hummingbird_runtime.operators import ALLOWED_OPERATORS
from hummingbird_train.models.attention import SpatialTransformer, TemporalTransformer
from hummingbird_train.models.blocks import Conditioning, Downsample, ResBlock, Upsample

EMB = nets.EMBEDDING_WIDTH
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def transformer(*, inner: int = 6, conv: bool = False) -> TemporalTransformer:
    return TemporalTransformer(4, inner=inner, head_channels=2, groups=2, conv_projections=conv)


def residual(channels_in: int, channels: int) -> ResBlock:
    return ResBlock(
        channels_in, channels, emb_channels=EMB, groups=2, dropout=0.0, temporal_dropout=0.0
    )


def up(s: blocks.Scene, x: ir.Value, module: Upsample, level: int) -> ir.Value:
    return blocks.upsample(s, x, module, level + 1)  # its level is the coarser one


def down(s: blocks.Scene, x: ir.Value, module: Downsample, level: int) -> ir.Value:
    return blocks.downsample(s, x, module)


BLOCKS: dict[str, tuple[Callable[[], nn.Module], Callable]] = {
    "residual": (lambda: residual(4, 4), lambda s, x, m, at: blocks.res_block(s, [x], m, at)),
    "wider residual": (lambda: residual(4, 8), lambda s, x, m, at: blocks.res_block(s, [x], m, at)),
    "spatial": (
        lambda: SpatialTransformer(
            4, head_channels=2, context_channels=nets.PROMPT_WIDTH, groups=2
        ),
        blocks.spatial_transformer,
    ),
    "temporal": (lambda: transformer(inner=4), blocks.temporal_transformer),
    "temporal with convolutions": (lambda: transformer(conv=True), blocks.temporal_transformer),
    "downsample": (lambda: Downsample(4), down),
    "upsample": (lambda: Upsample(4), up),
}


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def conditioning(frames: int, *, per_frame: bool) -> Conditioning:
    emb = drawn(1, frames if per_frame else 1, EMB, seed=1)
    context = drawn(1, nets.TOKENS, nets.PROMPT_WIDTH, seed=2)
    return Conditioning(1, frames, emb, context, images=False)


def lowered(build, form: Form, inputs: list[torch.Tensor], cond: Conditioning) -> torch.Tensor:
    """Features are those of level 1: the clip's own grid is twice as large."""
    grid = 2 * inputs[0].shape[2], 2 * inputs[0].shape[3]
    return nets.run_block(
        build, form, inputs, grid=grid, emb=nn.functional.silu(cond.emb[0]), context=cond.context[0]
    )


def assert_equal(got: torch.Tensor, want: torch.Tensor) -> None:
    # Sums of some dozen float32 products in another order.
    assert relative_l2(got.numpy(), want.numpy()) < 3e-6


@every_form
@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_computes_what_its_module_does(name: str, form: Form):
    make, build = BLOCKS[name]
    module = make()
    randomize(module, seed=3)
    for frames, rows, columns in ((5, 3, 1), (2, 2, 5), (7, 1, 2)):
        x = drawn(frames, 4, 2 * rows, 2 * columns)
        cond = conditioning(frames, per_frame=False)
        with torch.inference_mode():
            want = module(x, cond)
        got = lowered(lambda s, xs: build(s, xs[0], module, 1), form, [x], cond)
        assert got.shape == want.shape
        assert_equal(got, want)


@every_form
@pytest.mark.parametrize("per_frame", [False, True], ids=["one row", "row per frame"])
def test_a_residual_block_joins_two_inputs_and_takes_an_embedding_per_frame(
    form: Form, per_frame: bool
):
    module = residual(4 + 6, 8)
    randomize(module, seed=4)
    features = [drawn(5, 4, 3, 2), drawn(5, 6, 3, 2, seed=9)]
    cond = conditioning(5, per_frame=per_frame)
    with torch.inference_mode():
        want = module(torch.cat(features, dim=1), cond)
    assert_equal(
        lowered(lambda s, x: blocks.res_block(s, x, module, 1), form, features, cond), want
    )


@pytest.mark.parametrize("fused", [False, True], ids=["portable", "fused"])
def test_more_pieces_than_cells_leave_some_empty_and_the_rest_right(fused: bool):
    form = Form(fused=fused, frame_chunks=(1, 2), cell_chunks=(1, 7))
    module = transformer(conv=True)
    randomize(module, seed=5)
    for rows, columns in ((1, 1), (1, 3)):
        x, cond = drawn(3, 4, rows, columns), conditioning(3, per_frame=False)
        with torch.inference_mode():
            want = module(x, cond)
        build = partial(blocks.temporal_transformer, module=module, level=1)
        assert_equal(lowered(lambda s, xs: build(s, xs[0]), form, [x], cond), want)  # noqa: B023


DEFAULT = [
    ("07b", "pieces"), ("tiny", "portable"), ("frames", "portable-pieces"), ("pooled", "fused"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("config", "form"),
    [
        pytest.param(config, form, marks=() if (config, form) in DEFAULT else pytest.mark.slow)
        for config in CONFIGS
        for form in FORMS
    ],
)
def test_a_whole_network_computes_what_torch_does(config: str, form: str, tmp_path: Path):
    network, model = nets.lowered(config, form)
    parity = nets.verify(network, model, tmp_path, (3, 1, 2), (7, 3, 1))
    # Groups of two channels of a single cell amplify the rounding of what came before.
    assert parity.relative_l2 < 5e-5
    assert parity.cases == 2


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS)
def test_every_piece_of_a_usual_form_keeps_the_numbers(config: str, tmp_path: Path):
    network = nets.unet(config, seed=2)
    form = Form.in_pieces(network.config, (8, 64, 64), 60_000, fused=True)
    assert form.fused
    assert max(form.frame_chunks) > 1
    k = form.fewest_frames
    nets.verify(network, nets.lower(network, form), tmp_path, (k, 1, 1), (k + 3, 2, 3))


def test_cutting_changes_nothing_beyond_the_order_of_sums():
    rng = np.random.default_rng(0)
    feeds = {
        "sample": rng.standard_normal((1, 4, 5, 6, 4), np.float32),
        "timestep": np.array(519),
        "encoder_hidden_states": rng.standard_normal((1, nets.TOKENS, 6), np.float32),
        "fps": np.array([8]),
    }
    whole, cut = (
        nets.in_memory(nets.lowered("frames", form)[1]).run(None, feeds)[0]
        for form in ("portable", "portable-pieces")
    )
    assert relative_l2(cut, whole) < 1e-6


# ---- names ----


def published(name: str, array: np.ndarray, module: nn.Module) -> np.ndarray:
    """An initializer as torch holds it: Gemm's matrices are transposed, norms are broadcast."""
    if isinstance(module, nn.Linear) and array.ndim == 2:
        return array.T
    if isinstance(module, nn.Conv1d) and name.endswith("weight"):
        return array.T[..., None]
    if isinstance(module, nn.GroupNorm):
        assert array.shape[1:] == (1, 1)
        return array[:, 0, 0]
    return array[..., None] if isinstance(module, nn.Conv3d) and array.ndim == 4 else array


@pytest.mark.parametrize(
    ("config", "form"), [("09b", "portable"), ("07b", "pieces"), ("tiny", "fused")]
)
def test_every_weight_is_there_once_under_its_published_name(config: str, form: str):
    network, model = nets.lowered(config, form)
    found = nets.weights(model)
    modules, tensors = dict(network.named_modules()), network.state_dict()
    rebuilt: dict[str, np.ndarray] = {}
    for name, array in found.items():
        if name == "sinusoids":
            np.testing.assert_array_equal(array, network.sinusoids.numpy())
        elif not name.startswith("constant."):
            path, _, kind = name.rpartition(".")
            owner, _, half = path.rpartition(".")
            if half in ("value", "gate"):  # the two halves of a GEGLU
                other = found[f"{owner}.{'gate' if half == 'value' else 'value'}.{kind}"]
                halves = (array, other) if half == "value" else (other, array)
                rebuilt[f"{owner}.{kind}"] = np.concatenate([part.T for part in halves])
            else:
                rebuilt[name] = published(name, array, modules[path])
    assert rebuilt.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(rebuilt[name], tensor.numpy(), err_msg=name)


def test_pieces_read_the_same_weights():
    whole, cut = (nets.lowered("tiny", form)[1] for form in ("fused", "pieces"))

    def large(model: ir.Model) -> list[str]:
        return [name for name in model.graph.initializers if not name.startswith("constant.")]

    assert large(whole) == large(cut)
    uses = cut.graph.initializers["input_blocks.1.0.in_layers.2.weight"].uses()
    assert len(uses) == FORMS["pieces"].frames_at(0) == 3
    constants = [name for name in cut.graph.initializers if name.startswith("constant.")]
    assert len(constants) < 80  # equal ones are shared, whatever the number of pieces


@pytest.mark.parametrize("form", FORMS)
def test_a_node_bears_the_path_of_its_module_and_its_value_the_nodes_name(form: str):
    network, model = nets.lowered("tiny", form)
    modules = {name for name, _ in network.named_modules()}
    modules |= {f"{m}.{half}" for m in modules if m.endswith(".proj") for half in ("value", "gate")}
    glue = {"sizes", "sample", "timestep", "fps", "text", "frames", "context"}
    glue |= {"emb", "out"}
    names = [node.name for node in model.graph]
    assert len(set(names)) == len(names)
    layers = 0
    for node in model.graph:
        path, _, kind = node.name.partition("/")
        assert path in modules | glue, node.name
        outputs = [value.name for value in node.outputs]
        if not node.outputs[0].is_graph_output():
            several = len(outputs) > 1 or node.op_type == "Split"
            ends = [str(i) for i in range(len(outputs))] if several else ["out"]
            assert outputs == [f"{node.name}:{end}" for end in ends]
        if node.op_type in ("Gemm", "Conv"):
            layers += 1
            assert re.fullmatch(rf"{node.op_type}(@[1-9]\d*)?", kind), node.name
            assert node.inputs[1].name == f"{path}.weight"
    weights = [value for value in nets.weights(model).values() if value.ndim in (2, 4)]
    assert (layers >= len(weights)) == bool(FORMS[form].frame_chunks)


def test_the_same_network_gives_the_same_bytes(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        network = nets.unet("one")
        save_graph(nets.lower(network, PORTABLE), tmp_path / name)
    first, second = ((tmp_path / name / "model.onnx").read_bytes() for name in ("a", "b"))
    assert first == second


# ---- forms ----


def test_the_portable_form_has_standard_operators_only(tmp_path: Path):
    portable = nets.lowered("tiny", "portable")[1]
    assert set(operators(portable)) <= STANDARD
    assert portable.opset_imports == {"": 18}
    found = {node.op_type for node in portable.graph}
    assert {"Gemm", "Softmax", "Erf", "Sigmoid", "InstanceNormalization"} <= found
    assert not {"MultiHeadAttention", "FusedMatMul", "QuickGelu", "Split", "Gelu"} & found
    path = tmp_path / "model.onnx"
    ir.save(portable, path)
    onnx.checker.check_model(path, full_check=True)


def test_the_fused_form_takes_the_operators_of_the_cpu():
    fused = nets.lowered("tiny", "fused")[1]
    assert set(operators(fused)) <= ALLOWED_OPERATORS
    assert fused.opset_imports == {"": 18, "com.microsoft": 1}
    found = {node.op_type for node in fused.graph}
    assert {"MultiHeadAttention", "FusedMatMul", "QuickGelu", "Gelu"} <= found
    assert not {"Erf", "Sigmoid"} & found
    assert len(fused.graph) < len(nets.lowered("tiny", "portable")[1].graph)


def test_the_prompts_keys_are_made_once_for_all_frames():
    model = nets.lowered("tiny", "pieces")[1]
    names = [node.name for node in model.graph if ".attn2.to_k/" in node.name]
    spatial = [name for name in names if name.startswith("input_blocks.1.1.")]
    assert spatial == ["input_blocks.1.1.transformer_blocks.0.attn2.to_k/Gemm"]


# ---- what a wrong graph looks like to the verification ----


def swapped_geglu(s: blocks.Scene, x: ir.Value, module: nn.Module) -> ir.Value:
    projection = module.net[0].proj
    (gate_w, value_w), (gate_b, value_b) = projection.weight.chunk(2), projection.bias.chunk(2)
    value = blocks.linear(s.g, "value", x, value_w, value_b)
    gate = blocks.linear(s.g, "gate", x, gate_w, gate_b)
    hidden = s.g.op("Mul", value, blocks.gelu(s.g, s.form, gate))
    return blocks.dense(s.g, "net.2", hidden, module.net[2])


def per_frame_norm(g: GraphBuilder, name: str, x: ir.Value, module: nn.GroupNorm) -> ir.Value:
    """Statistics of each frame alone where a clip (1, c, t, cells) has them in common."""
    if "temopral_conv" not in ".".join(g._path):
        return GROUP_NORM(g, name, x, module)
    frames = g.op("Transpose", x, perm=[2, 1, 3, 0])  # (t, c, cells, 1)
    return g.op("Transpose", GROUP_NORM(g, name, frames, module), perm=[3, 1, 0, 2])


def reversed_pieces(self: Sizes, pieces: list[ir.Value], *, axis: int = 0) -> ir.Value:
    return JOIN(self, pieces[::-1], axis=axis)


def rough_gelu(g: GraphBuilder, form: Form, x: ir.Value) -> ir.Value:
    return g.op("QuickGelu", x, domain="com.microsoft", alpha=1.702)


def unscaled(g: GraphBuilder, form: Form, q: ir.Value, k: ir.Value, head: int) -> ir.Value:
    return ATTENTION(g, form, q, k, 1)


GROUP_NORM, JOIN, ATTENTION = blocks.group_norm, Sizes.join, blocks.attention_weights
MUTANTS = {
    "swapped GEGLU halves": (blocks, "feed_forward", swapped_geglu),
    "norm per frame": (blocks, "group_norm", per_frame_norm),
    "pieces in the wrong order": (Sizes, "join", reversed_pieces),
    "approximate GELU": (blocks, "gelu", rough_gelu),
    "scores that are not scaled": (blocks, "attention_weights", unscaled),
}


@pytest.mark.parametrize("mutant", [*MUTANTS, "none"])
def test_a_wrong_graph_is_noticed(mutant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    network, sizes = nets.unet("one"), (4, 3, 2)
    if mutant in MUTANTS:
        monkeypatch.setattr(*MUTANTS[mutant])
    model = nets.lower(network, Form(fused=True, frame_chunks=(2,), cell_chunks=(2,)))
    if mutant == "none":
        assert nets.verify(network, model, tmp_path, sizes).relative_l2 < 1e-5
        return
    with pytest.raises(ExecutionError, match=r"graph unet: relative L2 error") as caught:
        nets.verify(network, model, tmp_path, sizes)
    assert caught.value.code == "export.verify"
