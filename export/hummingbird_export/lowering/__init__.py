"""Networks written as ONNX graphs, operator by operator, in the form that a target runs best."""
