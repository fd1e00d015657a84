"""Which operators a bundle may use: a constant of the runtime, never of the bundle.

No control flow (Loop, If, Scan), no random numbers, no sinusoids, nothing that only makes big
tensors out of small ones. Domain ``com.microsoft`` holds ONNX Runtime's own fused operators.
"""

from __future__ import annotations

from collections.abc import Iterable

from hummingbird_runtime.errors import InputError, IntegrityError

OLDEST_OPSET, NEWEST_OPSET = 17, 23

_STANDARD = """
    Abs Add And ArgMax AveragePool BatchNormalization Cast Ceil Clip Concat Constant Conv
    ConvInteger ConvTranspose DepthToSpace DequantizeLinear Div DynamicQuantizeLinear Einsum Equal
    Erf Exp Expand Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool Greater
    GreaterOrEqual GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization
    LayerNormalization LeakyRelu Less LessOrEqual Log MatMul MatMulInteger Max Min Mod Mul Neg Not
    Or Pad Pow QLinearConv QLinearMatMul QuantizeLinear Range Reciprocal ReduceMax ReduceMean
    ReduceMin ReduceProd ReduceSum Relu Reshape Resize Round Shape Sigmoid Sign Size Slice Softmax
    SpaceToDepth Split Sqrt Squeeze Sub Sum Tanh Transpose Trilu Unsqueeze Where
"""
_MICROSOFT = """
    Attention BiasAdd BiasGelu BiasSplitGelu DynamicQuantizeMatMul FastGelu FusedConv FusedGemm
    FusedMatMul Gelu GroupNorm MatMulIntegerToFloat MatMulNBits MultiHeadAttention NhwcConv
    QAttention QuickGelu SkipGroupNorm SkipLayerNormalization
"""

ALLOWED_OPERATORS = frozenset(
    [f"ai.onnx:{name}" for name in _STANDARD.split()]
    + [f"com.microsoft:{name}" for name in _MICROSOFT.split()]
)


def check_operators(ops: Iterable[str], *, opset: int, graph: str) -> None:
    """Refuse a graph whose operators or opset this runtime does not take.

    Args:
        ops: ``domain:Name`` of every operator, as the manifest lists them.
        opset: version of the standard operator set.
        graph: path of the graph, for the message.

    Raises:
        IntegrityError: ``bundle.op_not_allowed`` naming every such operator.
        InputError: ``bundle.unsupported_opset``.
    """
    if not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        raise InputError(
            "bundle.unsupported_opset",
            f"graph {graph}: got opset {opset}, supported {OLDEST_OPSET} to {NEWEST_OPSET}",
            hint="export the bundle again with opset 18",
        )
    refused = sorted(set(ops) - ALLOWED_OPERATORS)
    if refused:
        raise IntegrityError(
            "bundle.op_not_allowed",
            f"graph {graph}: got operators {', '.join(refused[:8])} ({len(refused)} in all), "
            "expected only those a generation graph needs",
            hint="export the bundle again with the portable target",
        )
