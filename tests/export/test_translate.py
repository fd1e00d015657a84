"""The three translated operators: equal to torch, in the form that runtimes have fast."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hummingbird_export.storage import save_graph
from hummingbird_export.trace import trace
from hummingbird_export.verify import verify_graph
from hummingbird_export.wrappers import Axis, Signature
from hummingbird_runtime.manifest import Tensor as TensorSpec


class Attend(nn.Module):
    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.causal = causal

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)


class Gelu(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.gelu(x)


def signature(dims: dict[str, tuple], out: tuple) -> Signature:
    return Signature(
        role="unet",
        inputs=tuple(TensorSpec(name, "float32", d) for name, d in dims.items()),
        outputs=(TensorSpec("y", "float32", out),),
        axes={"F": Axis(largest=64)},
    )


def check(module: nn.Module, contract: Signature, folder: Path) -> list[str]:
    """Verify against torch, then give the operators that ONNX Runtime makes of it."""
    model = trace(module.eval(), contract)
    path = save_graph(model, folder)
    assert verify_graph(path, module, contract).relative_l2 < 1e-6
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(path), options)
    import onnx

    return [node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node]


@pytest.mark.parametrize("causal", [False, True])
def test_attention_transposes_the_keys_once(causal: bool, tmp_path: Path):
    length = 6 if causal else "F"
    dims = dict.fromkeys("qkv", ("F", 2, length, 8) if causal else (1, 2, "F", 8))
    operators = check(Attend(causal), signature(dims, dims["q"]), tmp_path)
    assert operators.count("Transpose") <= 1
    assert not {"Shape", "Reshape", "Slice", "Concat"} & set(operators)


def test_exact_gelu_is_one_kernel(tmp_path: Path):
    assert check(Gelu(), signature({"x": ("F", 8)}, ("F", 8)), tmp_path) == ["Gelu"]


def test_group_norm_takes_statistics_over_everything_behind_the_channels(tmp_path: Path):
    norm = nn.GroupNorm(2, 4, eps=1e-6)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)

    class Norm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = norm

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(x)

    dims = (1, 4, "F", 6)
    operators = check(Norm(), signature({"x": dims}, dims), tmp_path)
    assert operators.count("InstanceNormalization") == 1
    assert set(operators) <= {"InstanceNormalization", "Reshape", "Shape", "Mul", "Add"}


def test_masks_of_other_kinds_are_not_silently_dropped():
    class Masked(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mask = torch.zeros(x.shape[-2], x.shape[-2])
            return F.scaled_dot_product_attention(x, x, x, attn_mask=mask)

    contract = signature({"x": (1, 2, "F", 8)}, (1, 2, "F", 8))
    with pytest.raises(Exception, match=r"(?i)mask|trace"):
        trace(Masked().eval(), contract)
