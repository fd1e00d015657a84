"""Plain functions in place of graphs: a session backend for tests of what happens around them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import tiny_bundle

from hummingbird_runtime import TextToVideoPipeline
from hummingbird_runtime.cancel import CancelToken
from hummingbird_runtime.manifest import Tensor
from hummingbird_runtime.session import SessionOptions

Feeds = Mapping[str, np.ndarray]


def encode(feeds: Feeds) -> np.ndarray:
    ids = feeds["input_ids"].astype(np.float32)
    return np.repeat(ids[..., None] / 1000, tiny_bundle.WIDTH, axis=2).astype(np.float32)


def predict(feeds: Feeds) -> np.ndarray:
    shift = feeds["encoder_hidden_states"].mean() + 0.001 * float(feeds["timestep"])
    return (0.5 * feeds["sample"] + np.tanh(shift)).astype(np.float32)


def decode(feeds: Feeds) -> np.ndarray:
    rgb = np.tanh(feeds["latent_sample"][:, :3])
    return rgb.repeat(8, axis=2).repeat(8, axis=3).astype(np.float32)


class FakeSession:
    def __init__(
        self, log: list[str], role: str, function: Callable[[Feeds], np.ndarray], graph
    ) -> None:
        self.log, self.role, self.function = log, role, function
        self.inputs: tuple[Tensor, ...] = graph.inputs
        self.outputs: tuple[Tensor, ...] = graph.outputs

    def run(self, feeds: Feeds, *, cancel: CancelToken | None = None) -> dict[str, np.ndarray]:
        self.log.append(f"run {self.role}")
        assert {name: str(array.dtype) for name, array in feeds.items()} == {
            tensor.name: tensor.dtype for tensor in self.inputs
        }
        return {self.outputs[0].name: self.function(feeds)}

    def close(self) -> None:
        self.log.append(f"close {self.role}")


class FakeBackend:
    """Opens functions by role and keeps a log of what was opened, run and closed."""

    def __init__(self, graphs=None, **functions: Callable[[Feeds], np.ndarray]) -> None:
        defaults = {"text_encoder": encode, "unet": predict, "vae_decoder": decode}
        self.functions = {**defaults, **functions}
        self.graphs = tiny_bundle.graphs() if graphs is None else graphs
        self.log: list[str] = []
        self.options: SessionOptions | None = None

    def open(self, path: Path, options: SessionOptions) -> FakeSession:
        role, self.options = path.parent.name, options
        self.log.append(f"open {role}")
        function = self.functions[role]
        return FakeSession(self.log, role, lambda feeds: function(feeds), self.graphs[role])


PROMPT = "a red ball moving left"


def pipeline(path: Path, **functions: Callable[[Feeds], np.ndarray]) -> TextToVideoPipeline:
    return TextToVideoPipeline.from_pretrained(path, backend=FakeBackend(**functions))
