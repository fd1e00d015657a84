"""Styles: what the runtime merges at load through the map equals merging in torch and exporting."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from hummingbird_export.initializer_map import initializer_map, write_initializer_map
from hummingbird_export.lowering.form import PORTABLE, Form
from hummingbird_export.lowering.unet import lower_unet
from hummingbird_export.passes.weight_storage import store_weights_as_half
from hummingbird_export.precision import round_to_half
from hummingbird_export.random_models import random_unet
from hummingbird_export.storage import MAP_ALIGNMENT, strip_origin
from hummingbird_export.wrappers import example_feeds, run_module, unet_graph
from hummingbird_runtime.adapter_map import Stored, Weight
from hummingbird_runtime.adapter_merge import Factors, merge_weight
from hummingbird_runtime.errors import ExecutionError, InputError, UsageError
from hummingbird_runtime.strict_json import record
from hummingbird_train.lora import LowRank, load_adapter, merge_adapter, save_adapter
from hummingbird_train.models.unet import UNetConfig, VideoUNet

FUSED = Form(fused=True, frame_chunks=(2,), cell_chunks=(2,))
SIZES = {"F": 3, "h": 4, "w": 2}
DTYPES = {"float32": "<f4", "float16": "<f2", "int8": "i1", "uint8": "u1"}


@pytest.fixture(scope="module")
def network() -> VideoUNet:
    """Never changed by a test."""
    return random_unet(UNetConfig.tiny(), seed=1)


def save(model: ir.Model, folder: Path) -> Path:
    """Every weight of half a kilobyte and more as external data, small ones packed."""
    strip_origin(model)
    path = folder / "model.onnx"
    ir.save(
        model,
        path,
        external_data="model.onnx_data",
        size_threshold_bytes=511,
        alignment=MAP_ALIGNMENT,
        align_threshold=MAP_ALIGNMENT - 1,
    )
    return path


def weights(network: VideoUNet) -> dict[str, torch.Tensor]:
    """Weights of every convolution and linear layer, by module path."""
    return {
        name: module.weight.detach()
        for name, module in network.named_modules()
        if isinstance(getattr(module, "weight", None), torch.nn.Parameter)
        and module.weight.ndim >= 2
    }


def changes(network: VideoUNet, *, rank: int = 2) -> dict[str, LowRank]:
    """A change of every layer, each about as large as the weight."""
    torch.manual_seed(5)
    found = {}
    for index, (name, weight) in enumerate(weights(network).items()):
        down = torch.randn(rank, *weight.shape[1:]) * weight[0].numel() ** -0.5
        up = torch.randn(weight.shape[0], rank, *[1] * (weight.ndim - 2))
        found[name] = LowRank(down, up, None if index % 2 else 1.5)
    return found


def read(folder: Path, stored: Stored) -> np.ndarray:
    """An initializer from the file that the map names."""
    data = (folder / stored.file).read_bytes()[stored.offset : stored.offset + stored.bytes]
    return np.frombuffer(data, DTYPES[stored.dtype]).reshape(stored.dims)


def merged(
    folder: Path, table: Mapping[str, Any], pairs: Mapping[str, LowRank], strength: float
) -> dict[str, np.ndarray]:
    """What the runtime hands to ONNX Runtime, by initializer."""
    done = {}
    for target, pair in pairs.items():
        rank = pair.down.shape[0]
        factors = Factors(
            pair.up.reshape(-1, rank).numpy(),
            pair.down.reshape(rank, -1).numpy(),
            1.0 if pair.alpha is None else pair.alpha / rank,
        )
        for entry in table[target]:
            weight = record(Weight, entry, "entry")
            done[weight.name] = merge_weight(
                [(weight, factors)], strength, lambda stored: read(folder, stored)
            )
    return done


def run(path: Path, feeds: Mapping[str, Any], overrides: Mapping[str, np.ndarray]) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    arrays = [np.ascontiguousarray(array) for array in overrides.values()]
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in arrays]
    options.add_external_initializers(list(overrides), values)
    return onnxruntime.InferenceSession(path, options).run(None, feeds)[0]


@pytest.mark.parametrize("form", [PORTABLE, FUSED], ids=["portable", "fused"])
def test_every_layer_is_mapped_and_a_merge_at_load_equals_an_exported_merge(
    form: Form, network: VideoUNet, tmp_path: Path
):
    module, signature = unet_graph(network, tokens=24)
    path = save(lower_unet(network, signature, form), tmp_path)
    table = initializer_map(path)
    pairs = changes(network)
    assert set(table) == set(pairs)
    save_adapter(tmp_path / "style.safetensors", pairs)
    changed = copy.deepcopy(network)
    merge_adapter(changed, tmp_path / "style.safetensors", 0.7)
    overrides = merged(tmp_path, table, pairs, 0.7)
    exported = lower_unet(changed, signature, form).graph.initializers
    for name, array in overrides.items():
        # One product and one sum in float32, in another order.
        np.testing.assert_allclose(
            array, exported[name].const_value.numpy(), rtol=1e-5, atol=1e-6, err_msg=name
        )
    feeds = example_feeds(signature, SIZES)
    (plain,) = run_module(module, feeds)
    (expected,) = run_module(unet_graph(changed, tokens=24)[0], feeds)
    np.testing.assert_allclose(run(path, feeds, {}), plain, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(run(path, feeds, overrides), expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected - plain).max() > 0.1


def test_halves_of_a_geglu_are_rows_of_one_module(network: VideoUNet, tmp_path: Path):
    _, signature = unet_graph(network, tokens=24)
    table = initializer_map(save(lower_unet(network, signature), tmp_path))
    target = next(name for name in table if name.endswith("ff.net.0.proj"))
    size = weights(network)[target].shape[0] // 2
    value, gate = table[target]
    assert (value["name"], value["rows"]) == (f"{target}.value.weight", [0, size])
    assert (gate["name"], gate["rows"]) == (f"{target}.gate.weight", [size, 2 * size])
    assert value["layout"] == gate["layout"] == "linear_t"
    layouts = {name: entries[0]["layout"] for name, entries in table.items()}
    assert layouts["input_blocks.0.0"] == "conv"
    assert layouts["init_attn.0.proj_in"] == "linear_t"
    assert "rows" not in table["init_attn.0.proj_in"][0]


def test_weights_stored_as_half_are_mapped_behind_their_cast(network: VideoUNet, tmp_path: Path):
    network = round_to_half(network, min_elements=16)
    _, signature = unet_graph(network, tokens=24)
    model = lower_unet(network, signature)
    assert store_weights_as_half(model, min_elements=16) > 0
    path = save(model, tmp_path)
    table = initializer_map(path)
    assert set(table) == set(weights(network))
    kinds = {entry["dtype"] for entries in table.values() for entry in entries}
    assert kinds == {"float16"}
    target = "input_blocks.0.0"
    array = read(tmp_path, record(Weight, table[target][0], "entry"))
    assert np.array_equal(array, weights(network)[target].numpy())


def integer_graph(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """A convolution and a product with int8 weights, in the forms that quantization writes."""
    rng = np.random.default_rng(0)
    arrays = {
        "conv.weight": rng.integers(-64, 65, (3, 2, 1, 1)).astype(np.int8),
        "conv.weight.scale": np.array([0.01, 0.02, 0.03], np.float32),
        "conv.result.scale": np.array([0.5, 0.25, 2.0], np.float32),
        "zeros": np.zeros(3, np.int8),
        "shifted": np.array([0, 1, 2], np.int8),
        "lin.weight": rng.integers(-64, 65, (4, 3)).astype(np.int8),
        "lin.weight.scale": np.array([0.1, 0.2, 0.3], np.float32),
        "dynamic.weight": rng.integers(-64, 65, (4, 3)).astype(np.int8),
        "dynamic.weight.scale": np.array([0.4, 0.5, 0.6], np.float32),
        "nibbles.weight": rng.integers(-7, 8, (4, 3)).astype(np.int8),
        "table.weight": rng.normal(size=(5, 4)).astype(np.float32),
    }
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 18]>
        g (float[1, 2, 4, 4] x, float[1, 4] t, int64[1] i) =>
            (float[1, 3, 4, 4] y, float[1, 3] z, float[1, 4] r, int32[1, 3] total) {
            w = DequantizeLinear <axis = 0> (conv_weight, conv_weight_scale, zeros)
            y = Conv(x, w)
            m = DequantizeLinear <axis = 1> (lin_weight, lin_weight_scale, shifted)
            z1 = MatMul(t, m)
            wide = Cast <to = 1> (nibbles_weight)
            z2 = MatMul(t, wide)
            q, s, o = DynamicQuantizeLinear(t)
            total = MatMulInteger(q, dynamic_weight, o)
            z = Sum(z1, z2)
            r = Gather(table_weight, i)
        }"""
    )
    for node in model.graph.node:  # the parser takes no dots in names
        for index, name in enumerate(node.input):
            node.input[index] = name.replace("_", ".")
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in arrays.items())
    for tensor in model.graph.initializer:
        if tensor.name.endswith(".weight"):
            onnx.external_data_helper.set_external_data(tensor, "model.onnx_data")
    path = folder / "model.onnx"
    onnx.save(model, path)  # writes the external data, too
    return path, arrays


def test_integers_carry_scales_zero_points_and_the_factors_inside_them(tmp_path: Path):
    path, arrays = integer_graph(tmp_path)
    table = initializer_map(
        path,
        input_factors={"conv": np.array([2.0, 4.0], np.float32)},
        output_factors={"lin": np.array([1.0, 2.0, 8.0], np.float32)},
    )
    assert set(table) == {"conv", "dynamic", "lin"}
    conv, dynamic, lin = (record(Weight, table[name][0], "entry") for name in sorted(table))
    for weight in (conv, dynamic, lin):
        assert np.array_equal(read(tmp_path, weight), arrays[weight.name])
        assert np.array_equal(read(tmp_path, weight.scale), arrays[weight.scale.name])
    assert conv.zero_point is None  # all 0
    assert read(tmp_path, lin.zero_point).tolist() == [0, 1, 2]
    assert read(tmp_path, conv.input_gain).tolist() == [2, 4]
    assert read(tmp_path, conv.output_gain).tolist() == [2, 4, 0.5]  # 1 / result.scale
    assert lin.input_gain is None
    assert read(tmp_path, lin.output_gain).tolist() == [1, 0.5, 0.125]


def test_the_map_is_written_as_json_beside_the_graph(tmp_path: Path):
    path, _ = integer_graph(tmp_path)
    written = write_initializer_map(path)
    assert written == tmp_path / "initializers.json"
    assert json.loads(written.read_text()) == initializer_map(path)


def test_a_scale_without_raw_bytes_is_refused(tmp_path: Path):
    path, arrays = integer_graph(tmp_path)
    model = onnx.load(path, load_external_data=False)
    (scale,) = (t for t in model.graph.initializer if t.name == "lin.weight.scale")
    scale.ClearField("raw_data")
    scale.float_data.extend(arrays["lin.weight.scale"].tolist())
    onnx.save(model, path)
    with pytest.raises(ExecutionError, match=r"lin\.weight\.scale has no raw bytes") as caught:
        initializer_map(path)
    assert caught.value.code == "export.adapter_map"


def test_weights_inside_the_protobuf_are_left_out(network: VideoUNet, tmp_path: Path):
    _, signature = unet_graph(network, tokens=24)
    path = tmp_path / "model.onnx"
    ir.save(lower_unet(network, signature), path)
    assert initializer_map(path) == {}


def test_an_adapter_comes_back(tmp_path: Path):
    pairs = {
        "a.b": LowRank(torch.randn(2, 3), torch.randn(4, 2), 0.5),
        "c": LowRank(torch.randn(2, 3, 3, 3).half(), torch.randn(4, 2, 1, 1).half()),
    }
    save_adapter(tmp_path / "a.safetensors", pairs, base="some-id", name="ink")
    loaded = load_adapter(tmp_path / "a.safetensors")
    assert set(loaded) == set(pairs)
    for name, pair in pairs.items():
        assert torch.equal(loaded[name].down, pair.down.float())
        assert torch.equal(loaded[name].up, pair.up.float())
        assert loaded[name].alpha == pair.alpha


@pytest.mark.parametrize(
    "pair",
    [
        LowRank(torch.zeros(2, 3), torch.zeros(4, 3)),
        LowRank(torch.zeros(3), torch.zeros(4, 3)),
        LowRank(torch.zeros(2, 3), torch.zeros(4, 2, 3, 3)),
        LowRank(torch.zeros(2, 3).double(), torch.zeros(4, 2).double()),
        LowRank(torch.full((2, 3), torch.nan), torch.zeros(4, 2)),
        LowRank(torch.zeros(2, 3), torch.zeros(4, 2), float("inf")),
    ],
)
def test_factors_that_make_no_change_are_not_written(pair: LowRank, tmp_path: Path):
    with pytest.raises(UsageError) as caught:
        save_adapter(tmp_path / "a.safetensors", {"a": pair})
    assert caught.value.code == "adapter.factors"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("target", ["input_blocks.0.0", "no.such.layer", "out.0"])
def test_an_adapter_of_another_model_changes_nothing(
    target: str, network: VideoUNet, tmp_path: Path
):
    network = copy.deepcopy(network)
    before = copy.deepcopy(network.state_dict())
    pairs = {
        "out.2": changes(network)["out.2"],
        target: LowRank(torch.ones(2, 77), torch.ones(5, 2)),
    }
    save_adapter(tmp_path / "a.safetensors", pairs)
    with pytest.raises(InputError) as caught:
        merge_adapter(network, tmp_path / "a.safetensors")
    assert caught.value.code == "adapter.mismatch"
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())


def test_a_file_of_something_else_is_refused(tmp_path: Path):
    from safetensors.torch import save_file

    path = tmp_path / "a.safetensors"
    for tensors, metadata in (
        ({"a.lora_down.weight": torch.zeros(2, 3)}, {"format": "hummingbird-adapter"}),
        ({"a.weight": torch.zeros(2, 3)}, {"format": "hummingbird-adapter"}),
        (
            {"a.lora_down.weight": torch.zeros(2, 3), "a.lora_up.weight": torch.zeros(3, 2)},
            {"format": "pt"},
        ),
    ):
        save_file(tensors, path, metadata)
        with pytest.raises(InputError) as caught:
            load_adapter(path)
        assert caught.value.code == "adapter.invalid"
