"""The map of a bundle's weights: what makes no sense in it is refused before a sum is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors_file
import styled_bundle

from hummingbird_runtime.adapters import open_style
from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.errors import HummingbirdError, InputError


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("styles") / "ink.safetensors"
    return safetensors_file.write(path, styled_bundle.factors(), styled_bundle.FORMAT)


def merged(bundle: Path, style: Path, strength: float = 1.0) -> dict[str, np.ndarray]:
    return open_style(Bundle.open(bundle), style, strength).merged()


def change(key: str, **values: Any) -> Any:
    def apply(table: dict) -> None:
        table[key][0] |= values

    return apply


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda table: [], "bundle.manifest_invalid"),
        (lambda table: {"conv": 5}, "bundle.manifest_invalid"),
        (change("conv", url="x"), "bundle.manifest_invalid"),
        (change("conv", offset=-1), "bundle.manifest_invalid"),
        (change("conv", offset=1 << 40), "bundle.manifest_invalid"),
        (change("conv", dims=[0]), "bundle.manifest_invalid"),
        (change("conv", dims=[]), "bundle.manifest_invalid"),
        (change("conv", dims=[16]), "bundle.manifest_invalid"),
        (change("conv", file="gone"), "bundle.manifest_invalid"),
        (change("conv", file="../x"), "bundle.unsafe_path"),
        (change("conv", dtype="int8"), "bundle.manifest_invalid"),
        (change("conv", dtype="float64"), "bundle.manifest_invalid"),
        (change("conv", layout="linear_t"), "bundle.manifest_invalid"),
        (change("conv", layout="nchw"), "bundle.manifest_invalid"),
        (change("conv", rows=[0, 15]), "bundle.manifest_invalid"),
        (change("conv", rows=[-1, 15]), "bundle.manifest_invalid"),
        (change("proj", rows=[20, 36]), "adapter.mismatch"),
        (change("conv", dims=[16, 144, 1, 2]), "adapter.mismatch"),
    ],
)
def test_maps_that_make_no_sense_are_refused(
    tmp_path: Path, adapter: Path, damage: Any, code: str
) -> None:
    bundle = styled_bundle.write(tmp_path / "x", change_map=damage)
    with pytest.raises(HummingbirdError) as caught:
        merged(bundle, adapter)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "scale", [np.zeros(16, np.float32), np.full(16, np.nan, np.float32), np.ones(3, np.float32)]
)
def test_scales_that_make_no_sense_are_refused(
    tmp_path: Path, adapter: Path, scale: np.ndarray
) -> None:
    arrays = styled_bundle.initializers(styled_bundle.module_weights(), "int8")
    arrays["conv.weight.scale"] = scale
    bundle = styled_bundle.write(tmp_path / "x", "int8", arrays=arrays)
    with pytest.raises(InputError) as caught:
        merged(bundle, adapter, 0.01)
    assert caught.value.code == "bundle.manifest_invalid"


def test_two_shapes_of_one_initializer_are_refused(tmp_path: Path) -> None:
    def share(table: dict) -> None:
        table["extra"] = [{**table["out"][0], "name": "conv.weight"}]

    bundle = styled_bundle.write(tmp_path / "x", change_map=share)
    tensors = styled_bundle.factors()
    tensors["extra.lora_down.weight"] = np.ones((1, 16), np.float32)
    tensors["extra.lora_up.weight"] = np.ones((4, 1), np.float32)
    style = safetensors_file.write(tmp_path / "a", tensors, styled_bundle.FORMAT)
    with pytest.raises(InputError, match="two shapes") as caught:
        merged(bundle, style)
    assert caught.value.code == "bundle.manifest_invalid"
