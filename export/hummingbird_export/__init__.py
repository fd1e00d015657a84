"""The export side: checkpoints in, verified ONNX graphs and bundles out.

trace (torch to ONNX) -> simplify -> passes/ -> storage -> verify (against torch) -> package.
Importing this package loads neither torch nor onnx.
"""
