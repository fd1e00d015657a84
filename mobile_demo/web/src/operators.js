/** Which operators a bundle may use: a constant of the page, equal to the Python runtime's. */

import { HummingbirdError } from "./errors.js";

export const OLDEST_OPSET = 17;
export const NEWEST_OPSET = 23;

const STANDARD = `
  Abs Add And ArgMax AveragePool BatchNormalization Cast Ceil Clip Concat Constant Conv
  ConvInteger ConvTranspose DepthToSpace DequantizeLinear Div DynamicQuantizeLinear Einsum Equal
  Erf Exp Expand Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool Greater
  GreaterOrEqual GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization
  LayerNormalization LeakyRelu Less LessOrEqual Log MatMul MatMulInteger Max Min Mod Mul Neg Not
  Or Pad Pow QLinearConv QLinearMatMul QuantizeLinear Range Reciprocal ReduceMax ReduceMean
  ReduceMin ReduceProd ReduceSum Relu Reshape Resize Round Shape Sigmoid Sign Size Slice Softmax
  SpaceToDepth Split Sqrt Squeeze Sub Sum Tanh Transpose Trilu Unsqueeze Where`;
const MICROSOFT = `
  Attention BiasAdd BiasGelu BiasSplitGelu DynamicQuantizeMatMul FastGelu FusedConv FusedGemm
  FusedMatMul Gelu GroupNorm MatMulIntegerToFloat MatMulNBits MultiHeadAttention NhwcConv
  QAttention QuickGelu SkipGroupNorm SkipLayerNormalization`;

/** @type {ReadonlySet<string>} */
export const ALLOWED_OPERATORS = new Set([
  ...STANDARD.trim().split(/\s+/).map((name) => `ai.onnx:${name}`),
  ...MICROSOFT.trim().split(/\s+/).map((name) => `com.microsoft:${name}`),
]);

/**
 * Refuse a graph whose operators or opset the page does not take.
 * @param {{path: string, opset: number, ops: readonly string[]}} graph
 * @throws {HummingbirdError} `bundle.op_not_allowed`, `bundle.unsupported_opset`
 */
export function checkOperators({ path, opset, ops }) {
  if (!(opset >= OLDEST_OPSET && opset <= NEWEST_OPSET)) {
    throw new HummingbirdError("bundle.unsupported_opset",
      `graph ${path}: got opset ${opset}, supported ${OLDEST_OPSET} to ${NEWEST_OPSET}`,
      "export the bundle again with opset 18");
  }
  const refused = ops.filter((op) => !ALLOWED_OPERATORS.has(op)).sort();
  if (refused.length) {
    throw new HummingbirdError("bundle.op_not_allowed",
      `graph ${path}: got operators ${refused.slice(0, 8).join(", ")} (${refused.length} in all), `
      + "expected only those a generation graph needs",
      "export the bundle again with the portable target");
  }
}
