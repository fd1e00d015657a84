"""Published checkpoints to a folder of safetensors that ``hummingbird export build`` accepts.

container (what a file holds) -> doctor (which model it is, what is wrong) -> conversion (a folder,
whole or not at all). Pickles are read by sandbox/, in a child process that can run nothing.
Importing this package loads neither torch nor onnx.
"""
