"""Verification of written graphs: equal within 1e-4, and a tampered file is caught."""

from __future__ import annotations

import shutil
from pathlib import Path

import micro_models
import numpy as np
import onnx
import pytest

from hummingbird_export.precision import round_to_half
from hummingbird_export.random_models import randomize
from hummingbird_export.verify import TOLERANCE, standard_cases, verify_graph
from hummingbird_export.wrappers import decoder_graph, text_graph, unet_graph
from hummingbird_runtime.errors import ExecutionError

TOKENS = 24


def wrapped(role: str, *, guided: bool, half: bool):
    unet, vae, text_encoder = micro_models.networks(guided=guided)
    if half:
        unet, vae, text_encoder = map(round_to_half, (unet, vae, text_encoder))
    if role == "unet":
        return unet_graph(unet, tokens=TOKENS)
    return decoder_graph(vae) if role == "vae_decoder" else text_graph(text_encoder)


ROLES = ("text_encoder", "unet", "vae_decoder")


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("guided", [True, False])
def test_each_graph_equals_its_torch_module(
    role: str, guided: bool, guided_bundle: Path, plain_bundle: Path
):
    bundle = guided_bundle if guided else plain_bundle
    module, signature = wrapped(role, guided=guided, half=guided)
    parity = verify_graph(bundle / role / "model.onnx", module, signature)
    # Float32 on both sides: only the order of sums differs.
    assert parity.relative_l2 < 1e-5 < TOLERANCE
    assert parity.cases == 5


def test_the_sizes_of_shipped_clips_are_equal_too(guided_bundle: Path):
    module, signature = wrapped("unet", guided=True, half=True)
    sizes = [{"F": 26, "h": 8, "w": 8}, {"F": 1, "h": 2, "w": 10}]
    path = guided_bundle / "unet" / "model.onnx"
    assert verify_graph(path, module, signature, sizes=sizes).relative_l2 < 1e-5


def test_float16_storage_is_exact_only_for_the_rounded_weights(guided_bundle: Path):
    module, signature = wrapped("unet", guided=True, half=False)
    with pytest.raises(ExecutionError, match="relative L2 error"):
        verify_graph(guided_bundle / "unet" / "model.onnx", module, signature, tolerance=1e-6)


@pytest.mark.parametrize("role", ROLES)
def test_noise_in_one_weight_is_caught(role: str, plain_bundle: Path, tmp_path: Path):
    path = tmp_path / "model.onnx"
    model = onnx.load(plain_bundle / role / "model.onnx")
    tensor = max(
        (t for t in model.graph.initializer if "sinusoids" not in t.name and t.data_type == 1),
        key=lambda t: int(np.prod(t.dims)),
    )
    array = onnx.numpy_helper.to_array(tensor)
    noise = np.random.default_rng(0).standard_normal(array.shape).astype(np.float32)
    tensor.CopyFrom(onnx.numpy_helper.from_array(array + 0.1 * noise * array.std(), tensor.name))
    onnx.save(model, path)
    module, signature = wrapped(role, guided=False, half=False)
    with pytest.raises(ExecutionError, match="expected at most 1e-04") as caught:
        verify_graph(path, module, signature)
    assert caught.value.code == "export.verify"


def test_weights_of_another_model_are_caught(plain_bundle: Path):
    module, signature = wrapped("vae_decoder", guided=False, half=False)
    randomize(module, seed=99)
    with pytest.raises(ExecutionError, match="vae_decoder"):
        verify_graph(plain_bundle / "vae_decoder" / "model.onnx", module, signature)


def test_not_finite_outputs_and_broken_files_are_caught(plain_bundle: Path, tmp_path: Path):
    module, signature = wrapped("vae_decoder", guided=False, half=False)
    path = tmp_path / "model.onnx"
    model = onnx.load(plain_bundle / "vae_decoder" / "model.onnx")
    array = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy()
    array.flat[0] = np.inf
    name = model.graph.initializer[0].name
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(array, name))
    onnx.save(model, path)
    with pytest.raises(ExecutionError, match="not finite"):
        verify_graph(path, module, signature)
    shutil.copyfile(plain_bundle / "LICENSE", path)
    with pytest.raises(ExecutionError, match="ONNX Runtime failed"):
        verify_graph(path, module, signature)


def test_cases_differ_in_every_size_and_include_the_smallest():
    _, signature = wrapped("unet", guided=True, half=False)
    cases = standard_cases(signature)
    assert {"F": 1, "h": 2, "w": 2} in cases
    for axis in ("F", "h", "w"):
        assert len({case[axis] for case in cases}) >= 3
    assert all(case["h"] % 2 == 0 and case["w"] % 2 == 0 for case in cases)
    assert standard_cases(text_graph(micro_models.networks()[2])[1]) == [{}] * 5
