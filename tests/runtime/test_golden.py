"""``tests/data/golden.json``, the vectors that every implementation passes, and how it is made.

Noise and CLIP tokens are compared in ``test_noise.py`` and ``test_tokenizer.py``; here are the
other parts, with the trajectories' network as a graph in both bindings of ONNX Runtime.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_onnx

from hummingbird_runtime import SchedulerConfig, builtin_bundle
from hummingbird_runtime.capi import CapiBackend
from hummingbird_runtime.guidance import guidance_embedding
from hummingbird_runtime.noise import noise
from hummingbird_runtime.sampler import sample
from hummingbird_runtime.schedule import (
    alphas_cumprod,
    boundary_scalings,
    rescale_factors,
    timesteps,
)
from hummingbird_runtime.session import OnnxRuntimeBackend, SessionOptions
from hummingbird_runtime.tokenizer import Tokenizer

DATA = Path(__file__).parents[1] / "data"
GOLDEN = json.loads((DATA / "golden.json").read_text("utf-8"))
CONFIGS = {row["name"]: SchedulerConfig.from_json(row["config"]) for row in GOLDEN["schedules"]}

Denoiser = Callable[[np.ndarray, int], np.ndarray]


def network() -> bytes:
    """x / 2 + t / 2000, as the file's trajectories have it."""
    n = tiny_onnx.node
    nodes = [
        n("Mul", ["sample", "half"], ["shrunk"]),
        n("Cast", ["timestep"], ["t"], to=1),
        n("Div", ["t", "full"], ["shift"]),
        n("Add", ["shrunk", "shift"], ["out_sample"]),
    ]
    dims = [1, "C", "F", "h", "w"]
    return tiny_onnx.model(
        nodes,
        [("sample", "float32", dims), ("timestep", "int64", [])],
        [("out_sample", "float32", dims)],
        {"half": np.array(0.5, np.float32), "full": np.array(2000, np.float32)},
    )


@pytest.fixture(params=["numpy", "package", "C interface"])
def denoise(request: pytest.FixtureRequest, tmp_path: Path) -> Denoiser:
    if request.param == "numpy":
        return lambda x, t: (x / 2 + np.float32(t / 2000)).astype(np.float32)
    path = tmp_path / "model.onnx"
    path.write_bytes(network())
    backend = OnnxRuntimeBackend() if request.param == "package" else CapiBackend()
    session = backend.open(path, SessionOptions(threads=1))
    return lambda x, t: session.run({"sample": x, "timestep": np.array(t)})["out_sample"]


@pytest.mark.parametrize("row", GOLDEN["trajectories"], ids=lambda row: row["name"])
def test_trajectories_by_hand_are_retraced(row: dict, denoise: Denoiser) -> None:
    sizes, seed = row["frames_channels_height_width"], int(row["seed"])
    start = noise(seed, 0, *sizes)
    np.testing.assert_array_equal(start.ravel(), row["initial_noise"])
    config, count = CONFIGS[row["name"]], len(row["steps"])
    states = sample(denoise, start, config, count, lambda i: noise(seed, 1 + i, *sizes))
    for state, step in zip(states, row["steps"], strict=True):
        assert state.timestep == step["timestep"]
        for got, key in ((state.x_t, "x_next"), (state.denoised, "denoised")):
            expected = np.array(step[key])
            # float32 arithmetic against float64; sqrt(alpha) down to 0.07 magnifies rounding 15 x
            error = np.abs(got.ravel() - expected).max()
            assert error <= 1e-5 * np.abs(expected).max(), (state.index, key)


@pytest.mark.parametrize("row", GOLDEN["schedules"], ids=lambda row: row["name"])
def test_schedules_have_the_stored_bits(row: dict) -> None:
    config, at = CONFIGS[row["name"]], row["at"]
    alphas = alphas_cumprod(config)
    assert alphas[at].tolist() == row["alphas_cumprod"]
    digest = hashlib.sha256(alphas.astype("<f8").tobytes()).hexdigest()
    assert digest == row["alphas_cumprod_sha256"]
    assert rescale_factors(config)[at].tolist() == row["rescale_factors"]
    assert [list(boundary_scalings(config, t)) for t in at] == row["boundary_scalings"]
    for n, expected in row["timesteps"].items():
        assert timesteps(config, int(n)).tolist() == expected


@pytest.mark.parametrize("row", GOLDEN["guidance_embeddings"], ids=lambda row: f"w{row['w']}")
def test_guidance_embeddings_have_the_stored_bits(row: dict) -> None:
    got = guidance_embedding(row["w"], row["dim"])
    np.testing.assert_array_equal(got[0], np.array(row["values"], np.float32))


@pytest.mark.parametrize("row", GOLDEN["tokens"]["built_in"], ids=range(7))
def test_built_in_tokens_are_stored(row: dict) -> None:
    tokens = Tokenizer.from_files(builtin_bundle() / "tokenizer").encode(row["prompt"])
    assert tokens.ids[0].tolist() == row["ids"]
    got = (tokens.truncated, tokens.num_tokens, list(tokens.unknown))
    assert got == (row["truncated"], row["num_tokens"], row["unknown"])


def test_the_file_is_what_its_script_makes() -> None:
    pytest.importorskip("mpmath")
    spec = importlib.util.spec_from_file_location("generate_golden", DATA / "generate_golden.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert json.loads(json.dumps(script.golden(GOLDEN))) == GOLDEN


def test_every_number_of_the_file_is_exact_in_javascript() -> None:
    def numbers(value: object):
        if isinstance(value, dict | list):
            for item in value.values() if isinstance(value, dict) else value:
                yield from numbers(item)
        elif isinstance(value, int):
            yield value

    assert max(numbers(GOLDEN)) <= 2**53
