"""Styles: merged at load exactly as by hand, on every layout and number type, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors_file
import styled_bundle
import tiny_bundle
import tiny_onnx
from fake_graphs import PROMPT

from hummingbird_runtime import TextToVideoPipeline
from hummingbird_runtime.adapters import open_style
from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.cli import main
from hummingbird_runtime.errors import HummingbirdError, InputError, IntegrityError
from hummingbird_runtime.manifest import Adapter
from hummingbird_runtime.session import OnnxRuntimeBackend, SessionOptions

OPTIONS = SessionOptions(threads=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("styles")


@pytest.fixture(scope="module")
def bundles(folder: Path) -> dict[str, Path]:
    return {p: styled_bundle.write(folder / p, p) for p in ("fp32", "fp16", "int8")}


@pytest.fixture(scope="module")
def adapter(folder: Path) -> Path:
    path = folder / "ink.safetensors"
    return safetensors_file.write(path, styled_bundle.factors(), styled_bundle.FORMAT)


@pytest.fixture(scope="module")
def mild(folder: Path) -> Path:
    """Small changes, which integers can hold."""
    tensors = styled_bundle.factors(size=0.1)
    return safetensors_file.write(folder / "mild.safetensors", tensors, styled_bundle.FORMAT)


def feeds() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(9)
    return {
        "sample": rng.normal(size=(1, 4, 3, 8, 8)).astype(np.float32),
        "timestep": np.array(519),
        "encoder_hidden_states": np.zeros((1, 24, 8), np.float32),
        "timestep_cond": np.zeros((1, 16), np.float32),
        "fps": np.array([8]),
    }


def output(bundle: Path, merged: dict[str, np.ndarray] | None = None) -> np.ndarray:
    """What the U-Net of a bundle gives, some of its weights replaced at load."""
    options = SessionOptions(threads=1, initializers=merged or {})
    session = OnnxRuntimeBackend().open(bundle / "unet" / "model.onnx", options)
    try:
        return session.run(feeds())["out_sample"]
    finally:
        session.close()


def merged(bundle: Path, style: object, strength: object = 1.0) -> dict[str, np.ndarray]:
    return open_style(Bundle.open(bundle), style, strength).merged()


@pytest.mark.parametrize("strength", [1.0, -0.5, 0.25])
def test_a_float_merge_equals_the_merge_by_hand(
    bundles: dict[str, Path], adapter: Path, tmp_path: Path, strength: float
) -> None:
    weights = styled_bundle.by_hand(styled_bundle.factors(), strength)
    arrays = merged(bundles["fp32"], adapter, strength)
    by_hand = styled_bundle.stored(weights)
    assert arrays.keys() == by_hand.keys()
    for name, array in arrays.items():
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, by_hand[name], rtol=0, atol=1e-6)
        assert np.abs(array - styled_bundle.stored(styled_bundle.module_weights())[name]).max() > 0
    exported = styled_bundle.write(tmp_path / "merged", weights=weights)
    got, base = output(bundles["fp32"], arrays), output(bundles["fp32"])
    np.testing.assert_allclose(got, output(exported), rtol=0, atol=1e-5)
    assert np.abs(got - base).max() > 0.01


@pytest.mark.parametrize("module", ["proj", "conv", "out"])
def test_every_module_alone_reaches_the_running_graph(
    bundles: dict[str, Path], tmp_path: Path, module: str
) -> None:
    """Weights that ONNX Runtime rewrites when it loads, as of convolutions, are replaced too."""
    everything = styled_bundle.factors()
    tensors = {name: t for name, t in everything.items() if name.startswith(module)}
    path = safetensors_file.write(tmp_path / "one.safetensors", tensors, styled_bundle.FORMAT)
    changed = styled_bundle.by_hand(everything, 1.0)[module]
    weights = {**styled_bundle.module_weights(), module: changed}
    exported = output(styled_bundle.write(tmp_path / "merged", weights=weights))
    got = output(bundles["fp32"], merged(bundles["fp32"], path))
    np.testing.assert_allclose(got, exported, rtol=0, atol=1e-5)
    assert np.abs(got - output(bundles["fp32"])).max() > 0.01


def test_half_precision_storage_is_rounded_once(bundles: dict[str, Path], adapter: Path) -> None:
    by_hand = styled_bundle.stored(styled_bundle.module_weights())
    base = {name: a.astype(np.float16).astype(np.float64) for name, a in by_hand.items()}
    after = styled_bundle.stored(styled_bundle.by_hand(styled_bundle.factors(), 1.0))
    for name, array in merged(bundles["fp16"], adapter).items():
        exact = base[name] + (after[name].astype(np.float64) - by_hand[name])
        assert array.dtype == np.float16
        np.testing.assert_allclose(array.astype(np.float64), exact, rtol=1e-3, atol=1e-6)
    assert np.isfinite(output(bundles["fp16"], merged(bundles["fp16"], adapter))).all()


def test_integers_are_rounded_again_on_their_stored_scales(
    bundles: dict[str, Path], mild: Path, tmp_path: Path
) -> None:
    arrays = merged(bundles["int8"], mild, 1.0)
    stored = styled_bundle.initializers(styled_bundle.module_weights(), "int8")
    delta = styled_bundle.by_hand(styled_bundle.factors(size=0.1), 1.0)
    before = styled_bundle.stored(styled_bundle.module_weights())
    expected = dict(stored)
    for name, after in styled_bundle.stored(delta).items():
        axis = 1 if after.ndim == 2 else 0
        scale = stored[f"{name}.scale"].reshape([-1 if i == axis else 1 for i in range(after.ndim)])
        steps = np.rint((stored[name] * scale.astype(np.float64) + after - before[name]) / scale)
        expected[name] = np.clip(steps, -64, 64).astype(np.int8)
        assert arrays[name].dtype == np.int8
        assert (arrays[name] != stored[name]).any()
        # a value within float32 of the middle between two steps may go either way
        apart = arrays[name].astype(int) - expected[name]
        assert np.abs(apart).max() <= 1
        assert (apart != 0).mean() < 0.002
    assert not any(name.endswith(".scale") for name in arrays)
    exported = styled_bundle.write(tmp_path / "merged", "int8", arrays={**stored, **arrays})
    np.testing.assert_array_equal(output(bundles["int8"], arrays), output(exported))


def test_integers_that_would_leave_their_range_are_refused(
    bundles: dict[str, Path], adapter: Path
) -> None:
    with pytest.raises(InputError, match=r"strength 3: .*% of .* leaves the range of int8") as got:
        merged(bundles["int8"], adapter, 3.0)
    assert got.value.code == "adapter.saturates"


def test_half_precision_that_overflows_is_refused(bundles: dict[str, Path], tmp_path: Path) -> None:
    tensors = {
        "out.lora_down.weight": np.full((1, 16, 1, 1), 300, np.float32),
        "out.lora_up.weight": np.full((4, 1, 1, 1), 300, np.float32),
    }
    path = safetensors_file.write(tmp_path / "big.safetensors", tensors, styled_bundle.FORMAT)
    with pytest.raises(InputError) as caught:
        merged(bundles["fp16"], path)
    assert caught.value.code == "adapter.saturates"
    assert merged(bundles["fp32"], path)["out.weight"].max() > 89_000


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_strength_0_replaces_nothing(
    bundles: dict[str, Path], adapter: Path, precision: str
) -> None:
    assert merged(bundles[precision], adapter, 0) == {}
    assert merged(bundles[precision], adapter, -0.0) == {}


def test_gains_and_zero_point_of_stored_integers_are_undone(tmp_path: Path) -> None:
    """uint8 around 128, one scale for all, in channels that were multiplied before rounding."""
    rng = np.random.default_rng(3)
    gain, outer = np.exp(rng.normal(size=(2, 16))).astype(np.float32)
    both = outer[:, None, None, None] * gain[:, None, None]
    base = styled_bundle.module_weights()
    smooth = base["conv"] * both
    scale = np.float32(np.abs(smooth).max() / 63)
    arrays = styled_bundle.initializers(base, "fp32")
    arrays["conv.weight"] = (np.rint(smooth / scale) + 128).astype(np.uint8)
    arrays |= {"s": scale.reshape(()), "z": np.uint8([128]), "g": gain, "o": outer}
    _, _, places = styled_bundle.graph(arrays, "fp32")

    def add(table: dict) -> None:
        table["conv"][0] |= {"scale": places["s"], "zero_point": places["z"]}
        table["conv"][0] |= {"input_gain": places["g"], "output_gain": places["o"]}

    path = styled_bundle.write(tmp_path / "x", arrays=arrays, change_map=add)
    tensors = styled_bundle.factors(size=0.1)
    style = safetensors_file.write(tmp_path / "a", tensors, styled_bundle.FORMAT)
    got = merged(path, style)["conv.weight"]
    delta = (styled_bundle.by_hand(tensors, 1.0)["conv"] - base["conv"]) * both
    steps = np.rint(np.rint(smooth / scale) + delta / scale)
    assert got.dtype == np.uint8
    apart = got.astype(float) - 128 - np.clip(steps, -64, 64)
    assert np.abs(apart).max() <= 1
    assert (apart != 0).mean() < 0.005
    assert (got.astype(float) - 128 != np.rint(smooth / scale)).mean() > 0.01


def change(key: str, **values: Any) -> Any:
    def apply(table: dict) -> None:
        table[key][0] |= values

    return apply


def clip(bundle: Path, **arguments: Any) -> np.ndarray:
    with TextToVideoPipeline.from_pretrained(bundle, threads=1, **arguments) as pipe:
        return pipe(PROMPT, seed=1, output_type="latent")


@pytest.mark.parametrize("low_memory", [False, True])
def test_the_pipeline_draws_with_the_style(
    bundles: dict[str, Path], adapter: Path, tmp_path: Path, low_memory: bool
) -> None:
    bundle = bundles["fp32"]
    weights = styled_bundle.by_hand(styled_bundle.factors(), 0.5)
    exported = clip(styled_bundle.write(tmp_path / "merged", weights=weights))
    styled = clip(bundle, style=adapter, style_strength=0.5, low_memory=low_memory)
    np.testing.assert_allclose(styled, exported, rtol=0, atol=1e-5 * np.abs(exported).max())
    base = clip(bundle)
    assert np.abs(styled - base).max() > 1e-3
    np.testing.assert_array_equal(clip(bundle, style=str(adapter), style_strength=0), base)


def test_styles_of_a_bundle_go_by_name(tmp_path: Path, adapter: Path) -> None:
    bundle = styled_bundle.write(
        tmp_path / "x",
        more={"adapters/ink.safetensors": adapter.read_bytes()},
        adapters={"ink": Adapter("adapters/ink.safetensors", ("proj", "conv", "out"))},
    )
    by_name, by_path = merged(bundle, "ink"), merged(bundle, adapter)
    for name, array in by_path.items():
        np.testing.assert_array_equal(by_name[name], array)
    opened = Bundle.open(bundle)
    stored = bundle / "adapters" / "ink.safetensors"
    stored.write_bytes(stored.read_bytes())
    with pytest.raises(IntegrityError) as caught:
        open_style(opened, "ink", 1.0)
    assert caught.value.code == "bundle.changed"


def test_the_command_takes_a_style_and_tells_it(
    bundles: dict[str, Path], adapter: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["generate", PROMPT, "--bundle", str(bundles["fp32"]), "--threads", "1", "--json"]
    frames = {}
    for name, extra in {
        "base": [], "zero": [f"{adapter}:0"], "half": [f"{adapter}:0.5"], "full": [str(adapter)]
    }.items():  # fmt: skip
        style = ["--style", *extra] if extra else []
        assert main([*words, "-o", f"{name}.npz", *style]) == 0
        with np.load(f"{name}.npz") as stored:
            frames[name] = stored["frames"]
        out = capsys.readouterr().out
        strength = {"base": "null", "zero": "0.0", "half": "0.5", "full": "1.0"}[name]
        assert f'"style_strength": {strength}' in out
    np.testing.assert_array_equal(frames["base"], frames["zero"])
    assert (frames["base"] != frames["half"]).any()
    assert (frames["half"] != frames["full"]).any()


@pytest.mark.parametrize(
    ("style", "strength", "code"),
    [
        (5, 1.0, "request.type"),
        ("ink", "strong", "request.type"),
        ("ink", True, "request.type"),
        ("ink", float("nan"), "request.not_finite"),
        ("ink", 11, "adapter.strength"),
        ("ink", -11, "adapter.strength"),
        ("ink", 1.0, "adapter.not_found"),
        ("a\0b", 1.0, "adapter.not_found"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    bundles: dict[str, Path], style: object, strength: object, code: str
) -> None:
    with pytest.raises(HummingbirdError) as caught:
        merged(bundles["fp32"], style, strength)
    assert caught.value.code == code


def test_a_bundle_without_a_map_takes_no_style(tiny_bundle_path: Path, adapter: Path) -> None:
    with pytest.raises(InputError, match=r"lacks unet/initializers\.json") as caught:
        merged(tiny_bundle_path, adapter)
    assert caught.value.code == "adapter.mismatch"


def test_a_style_of_another_bundle_is_refused(bundles: dict[str, Path], tmp_path: Path) -> None:
    mine = {**styled_bundle.FORMAT, "base": tiny_bundle.BUNDLE_ID}
    other = {**styled_bundle.FORMAT, "base": "00000000-0000-4000-8000-000000000002"}
    path = tmp_path / "a"
    assert merged(
        bundles["fp32"], safetensors_file.write(path, styled_bundle.factors(), mine)
    )  # fmt: skip
    with pytest.raises(InputError, match="made for bundle") as caught:
        merged(bundles["fp32"], safetensors_file.write(path, styled_bundle.factors(), other))
    assert caught.value.code == "adapter.mismatch"


def test_a_map_of_another_graph_is_refused_by_the_graph(tmp_path: Path, adapter: Path) -> None:
    for number, values in enumerate(({"name": "blur.weight"}, {"dims": [16, 144, 1, 1]})):
        bundle = styled_bundle.write(tmp_path / f"{number}", change_map=change("conv", **values))
        with pytest.raises(InputError) as caught:
            TextToVideoPipeline.from_pretrained(bundle, style=adapter)
        assert caught.value.code == "adapter.mismatch"


def test_two_modules_in_one_initializer_are_both_added(tmp_path: Path, adapter: Path) -> None:
    def share(table: dict) -> None:
        table["gate"] = table["proj"][1:]
        table["gate"][0] = {**table["gate"][0], "rows": [0, 16]}

    bundle = styled_bundle.write(tmp_path / "x", change_map=share)
    tensors = styled_bundle.factors()
    tensors["gate.lora_down.weight"] = np.ones((1, 4), np.float32)
    tensors["gate.lora_up.weight"] = np.arange(16, dtype=np.float32).reshape(16, 1)
    style = safetensors_file.write(tmp_path / "a", tensors, styled_bundle.FORMAT)
    both, one = merged(bundle, style)["proj.gate.weight"], merged(bundle, adapter)
    expected = one["proj.gate.weight"] + np.arange(16, dtype=np.float32)
    np.testing.assert_allclose(both, expected, atol=1e-5)


def test_weights_that_changed_after_they_were_verified_are_refused(
    tmp_path: Path, adapter: Path
) -> None:
    bundle = styled_bundle.write(tmp_path / "x")
    pipe = TextToVideoPipeline.from_pretrained(bundle, style=adapter, preload=False)
    data = bundle / "unet" / "model.onnx_data"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(IntegrityError) as caught:
        pipe.load()
    assert caught.value.code == "bundle.changed"


def test_replaced_weights_live_as_long_as_their_session(
    bundles: dict[str, Path], adapter: Path
) -> None:
    options = SessionOptions(threads=1, initializers=merged(bundles["fp32"], adapter))
    session = OnnxRuntimeBackend().open(bundles["fp32"] / "unet" / "model.onnx", options)
    expected = session.run(feeds())["out_sample"]
    del options
    for _ in range(20):
        np.random.default_rng(0).normal(size=100_000)
        np.testing.assert_array_equal(session.run(feeds())["out_sample"], expected)
    session.close()


def test_a_graph_with_its_weights_inside_is_told_so(tmp_path: Path) -> None:
    model = tiny_onnx.model(
        [tiny_onnx.node("MatMul", ["x", "w"], ["y"])],
        [("x", "float32", ["N", 2])],
        [("y", "float32", ["N", 2])],
        {"w": np.eye(2, dtype=np.float32)},
    )
    (tmp_path / "model.onnx").write_bytes(model)
    options = SessionOptions(initializers={"w": np.ones((2, 2), np.float32)})
    with pytest.raises(InputError) as caught:
        OnnxRuntimeBackend().open(tmp_path / "model.onnx", options)
    assert caught.value.code == "adapter.mismatch"
