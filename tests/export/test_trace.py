"""Tracing: names and free sizes of the signature, and refusal of what is not portable."""

from __future__ import annotations

import micro_models
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn

from hummingbird_export.trace import OPSET, check_portable, check_signature, operators, trace
from hummingbird_export.wrappers import (
    Axis,
    Signature,
    decoder_graph,
    example_feeds,
    text_graph,
    unet_graph,
)
from hummingbird_runtime.errors import ExecutionError
from hummingbird_runtime.manifest import Tensor as TensorSpec

VECTOR = Signature(
    role="vae_decoder",
    inputs=(TensorSpec("x", "float32", ("N", 4)),),
    outputs=(TensorSpec("y", "float32", ("N", 4)),),
    axes={"N": Axis(largest=16)},
)


class Function(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def test_a_traced_decoder_bears_the_signature_and_standard_operators():
    _, vae, _ = micro_models.networks()
    module, signature = decoder_graph(vae)
    model = trace(module, signature)
    check_signature(model, signature)
    assert model.opset_imports == {"": OPSET}
    assert operators(model) == tuple(sorted(operators(model)))
    assert "ai.onnx:Conv" in operators(model)


def test_group_norm_is_written_as_instance_normalization():
    norm = nn.GroupNorm(2, 4)
    nn.init.normal_(norm.weight)
    signature = Signature(
        role="unet",
        inputs=(TensorSpec("x", "float32", ("N", 4, 6)),),
        outputs=(TensorSpec("y", "float32", ("N", 4, 6)),),
        axes={"N": Axis(largest=16)},
    )
    names = operators(trace(Function(norm).eval(), signature))
    assert "ai.onnx:InstanceNormalization" in names
    assert "ai.onnx:GroupNormalization" not in names


def test_sinusoids_are_refused():
    with pytest.raises(ExecutionError, match=r"ai\.onnx:Sin") as caught:
        trace(Function(torch.sin).eval(), VECTOR)
    assert caught.value.code == "export.not_portable"


def test_foreign_operators_and_other_opsets_are_refused():
    opsets = '<ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>'
    text = opsets + " g (float[1] x) => (float[1] y) "
    foreign = ir.from_proto(onnx.parser.parse_model(text + "{ y = com.microsoft.Gelu(x) }"))
    with pytest.raises(ExecutionError, match=r"com\.microsoft:Gelu"):
        check_portable(foreign, "unet")
    newer = ir.from_proto(onnx.parser.parse_model(text.replace("18", "21") + "{ y = Relu(x) }"))
    with pytest.raises(ExecutionError, match="at opset 21"):
        check_portable(newer, "unet")


def test_a_size_fixed_by_the_forward_is_refused():
    with pytest.raises(ExecutionError) as caught:
        trace(Function(lambda x: x.reshape(3, 4) + 1).eval(), VECTOR)
    assert caught.value.code in ("export.trace", "export.signature")
    assert "site-packages" not in str(caught.value)


def test_signatures_follow_the_networks():
    guided, vae, text_encoder = micro_models.networks(guided=True)
    plain, _, _ = micro_models.networks(guided=False)
    names = [
        [spec.name for spec in unet_graph(unet, tokens=24)[1].inputs] for unet in (guided, plain)
    ]
    expected = ["sample", "timestep", "encoder_hidden_states", "timestep_cond", "fps"]
    assert names == [expected, [name for name in expected if name != "timestep_cond"]]
    assert decoder_graph(vae)[1].outputs[0].dims == ("N", 3, "H", "W")
    assert text_graph(text_encoder)[1].inputs[0].dims == (1, 24)


def test_example_feeds_stay_below_their_bounds_and_repeat():
    unet, _, _ = micro_models.networks()
    _, signature = unet_graph(unet, tokens=24)
    sizes = {"F": 3, "h": 2, "w": 4}
    feeds, again = (example_feeds(signature, sizes, seed=5) for _ in range(2))
    assert feeds["sample"].shape == (1, 4, 3, 2, 4)
    assert feeds["timestep"].shape == ()
    assert 0 <= feeds["fps"][0] < 1000
    assert all((feeds[name] == again[name]).all() for name in feeds)
