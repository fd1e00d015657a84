"""The networks as torch modules, with the tensor names of the published checkpoints."""
