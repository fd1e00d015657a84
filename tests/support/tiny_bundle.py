"""Makes complete bundles of a few KB whose graphs run in microseconds.

The U-Net shrinks its input and adds one number that depends on every other input; the decoder is a
1x1 convolution and an enlargement by 8. The pictures mean nothing, the contract is the real one.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import tiny_onnx

from hummingbird_runtime import integrity
from hummingbird_runtime.manifest import (
    Choice,
    Frames,
    Graph,
    Guidance,
    Licence,
    Manifest,
    ModelFacts,
    Side,
    Tensor,
)

CHANNELS, WIDTH, LENGTH, COND = 4, 8, 24, 16
WORDS = ("a", "red", "blue", "ball", "square", "moving", "left", "right", "up", "down")
BUNDLE_ID = "00000000-0000-4000-8000-000000000001"


def text_encoder() -> bytes:
    table = np.random.default_rng(0).normal(size=(600, WIDTH)).astype(np.float32)
    return tiny_onnx.model(
        [tiny_onnx.node("Gather", ["table", "input_ids"], ["last_hidden_state"])],
        [("input_ids", "int64", ["B", "L"])],
        [("last_hidden_state", "float32", ["B", "L", WIDTH])],
        {"table": table},
    )


def unet(opset: int = 18, inputs: list[tuple] | None = None) -> bytes:
    n = tiny_onnx.node
    sinus = np.sin(np.arange(1000) * 0.37).astype(np.float32)
    nodes = [
        n("ReduceMean", ["encoder_hidden_states"], ["c"], keepdims=0),
        n("ReduceMean", ["timestep_cond"], ["w"], keepdims=0),
        n("Gather", ["table", "timestep"], ["t"]),
        n("Gather", ["table", "fps"], ["f"]),
        n("ReduceMean", ["f"], ["f0"], keepdims=0),
        n("Sum", ["c", "w", "t", "f0"], ["all"]),
        n("Tanh", ["all"], ["shift"]),
        n("Mul", ["sample", "half"], ["shrunk"]),
        n("Add", ["shrunk", "shift"], ["out_sample"]),
    ]
    dims = ["B", CHANNELS, "F", "h", "w"]
    return tiny_onnx.model(
        nodes,
        inputs
        or [
            ("sample", "float32", dims),
            ("timestep", "int64", []),
            ("encoder_hidden_states", "float32", ["B", "L", WIDTH]),
            ("timestep_cond", "float32", ["B", COND]),
            ("fps", "int64", ["B"]),
        ],
        [("out_sample", "float32", dims)],
        {"table": sinus, "half": np.float32(0.5).reshape(())},
        opset=opset,
    )


def vae_decoder(inputs: list[tuple] | None = None) -> bytes:
    kernel = np.random.default_rng(1).normal(size=(3, CHANNELS, 1, 1)).astype(np.float32)
    nodes = [
        tiny_onnx.node("Conv", ["latent_sample", "kernel"], ["rgb"]),
        tiny_onnx.node("Resize", ["rgb", "", "scales"], ["big"], mode="nearest"),
        tiny_onnx.node("Tanh", ["big"], ["sample"]),
    ]
    return tiny_onnx.model(
        nodes,
        inputs or [("latent_sample", "float32", ["N", CHANNELS, "h", "w"])],
        [("sample", "float32", ["N", 3, "H", "W"])],
        {"kernel": kernel, "scales": np.array([1, 1, 8, 8], np.float32)},
    )


def tokenizer_files() -> dict[str, bytes]:
    alphabet = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = [chr(b) for b in alphabet] + [chr(0x100 + i) for i in range(256 - len(alphabet))]
    tokens, merges = letters + [letter + "</w>" for letter in letters], []
    for word in WORDS:
        symbols = [*word[:-1], word[-1] + "</w>"]
        while len(symbols) > 1:
            joined = symbols[-2] + symbols[-1]
            if joined not in tokens:
                merges.append((symbols[-2], symbols[-1]))
                tokens.append(joined)
            symbols[-2:] = [joined]
    vocabulary = {token: i for i, token in enumerate([*tokens, "<start>", "<end>"])}
    config = {
        "model_max_length": LENGTH,
        "bos_token_id": vocabulary["<start>"],
        "eos_token_id": vocabulary["<end>"],
        "pad_token_id": 0,
        "unknown_words": "drop",
    }
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    return {
        "tokenizer/vocab.json": json.dumps(vocabulary).encode(),
        "tokenizer/merges.txt": ("\n".join(lines) + "\n").encode(),
        "tokenizer/tokenizer_config.json": json.dumps(config).encode(),
    }


def facts(**changes) -> ModelFacts:
    values = {
        "latent_channels": CHANNELS,
        "vae_scale_factor": 8,
        "frames": Frames(trained=6, default=6, allowed=(1, 12)),
        "height": Side(trained=32, default=32, multiple_of=16, allowed=(16, 64)),
        "width": Side(trained=32, default=32, multiple_of=16, allowed=(16, 64)),
        "fps_condition": Choice(default=8, trained=(8,), allowed=(1, 30)),
        "playback_fps": 8,
        "guidance": Guidance("embedded", default=2.0, trained=(1.0, 4.0), allowed=(1.0, 10.0)),
        "timestep_cond_dim": COND,
        "num_inference_steps": Choice(default=4, trained=(4,), allowed=(1, 50)),
        "scaling_factor": 0.5,
        "latent_rgb": ((0.1, 0.0, 0.0, 0.1, 0.0),) * 3,
        "vocabulary_examples": ("a red ball moving left", "a blue square moving up"),
        "grammar": "a COLOUR SHAPE moving DIRECTION",
        "decode_chunk": 4,
    }
    return ModelFacts(**{**values, **changes})


def graphs() -> dict[str, Graph]:
    latent = ("B", CHANNELS, "F", "h", "w")
    return {
        "text_encoder": Graph(
            path="text_encoder/model.onnx",
            opset=18,
            inputs=(Tensor("input_ids", "int64", ("B", "L")),),
            outputs=(Tensor("last_hidden_state", "float32", ("B", "L", WIDTH)),),
            ops=("ai.onnx:Gather",),
        ),
        "unet": Graph(
            path="unet/model.onnx",
            opset=18,
            inputs=(
                Tensor("sample", "float32", latent),
                Tensor("timestep", "int64", ()),
                Tensor("encoder_hidden_states", "float32", ("B", "L", WIDTH)),
                Tensor("timestep_cond", "float32", ("B", COND)),
                Tensor("fps", "int64", ("B",)),
            ),
            outputs=(Tensor("out_sample", "float32", latent),),
            ops=tuple(
                f"ai.onnx:{op}" for op in ("Add", "Gather", "Mul", "ReduceMean", "Sum", "Tanh")
            ),
            parity={"max_abs": 0.0},
        ),
        "vae_decoder": Graph(
            path="vae_decoder/model.onnx",
            opset=18,
            inputs=(Tensor("latent_sample", "float32", ("N", CHANNELS, "h", "w")),),
            outputs=(Tensor("sample", "float32", ("N", 3, "H", "W")),),
            ops=("ai.onnx:Conv", "ai.onnx:Resize", "ai.onnx:Tanh"),
        ),
    }


def files() -> dict[str, bytes]:
    """Every file but the manifest's own two."""
    return {
        "text_encoder/model.onnx": text_encoder(),
        "unet/model.onnx": unet(),
        "vae_decoder/model.onnx": vae_decoder(),
        "scheduler/scheduler_config.json": json.dumps({"sampler": "lcm"}).encode(),
        "LICENSE": b"for tests\n",
        "README.md": b"# tiny\n",
        **tokenizer_files(),
    }


def write(root: Path, content: dict[str, bytes] | None = None, **changes) -> Path:
    """Write a sealed bundle to the new folder ``root``; ``changes`` replace manifest fields."""
    for path, data in (files() if content is None else content).items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    manifest = Manifest(
        bundle_id=BUNDLE_ID,
        name="tiny",
        files=integrity.file_entries(root),
        graphs=graphs(),
        model=facts(),
        licence=Licence("CC0-1.0", "LICENSE"),
        provenance={"recipe": "tests"},
    )
    integrity.seal(root, dataclasses.replace(manifest, **changes))
    return root
