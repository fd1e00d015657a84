"""Small U-Nets, easy and hard, quantized in every precision and sampled over four steps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from layer_graphs import kernels, save

from hummingbird_export.gates import compare, gate
from hummingbird_export.lowering.form import PORTABLE, Form
from hummingbird_export.lowering.unet import lower_unet
from hummingbird_export.quantize import calibrate, quantize_graph
from hummingbird_export.quantize.ranges import Observation, Ranges, Spread
from hummingbird_export.random_models import LCM, preset, random_unet
from hummingbird_export.trajectory import (
    Denoiser,
    Settings,
    final_latents,
    random_cases,
    trajectory,
)
from hummingbird_export.wrappers import unet_graph
from hummingbird_runtime.errors import ExecutionError
from hummingbird_train.models.unet import UNetConfig

TOKENS = 24
CASES = random_cases(2, TOKENS, 96)
TINY = preset("tiny").unet
SMALL = replace(TINY, attention_resolutions=(2,))  # half the layers
CHUNKED = Form(fused=True, frame_chunks=(3, 2), cell_chunks=(2, 2))


@dataclass(frozen=True)
class Exact:
    """A float32 graph with all that its quantization needs."""

    path: Path
    ranges: Ranges
    settings: Settings
    latents: list[np.ndarray]
    feeds: list


def denoiser(path: Path) -> Denoiser:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda feeds: session.run(None, feeds)[0]


def lowered(
    form: Form, hard: bool, folder: Path, config: UNetConfig = SMALL
) -> tuple[Path, Settings]:
    unet = random_unet(config, seed=3, hard=hard)
    _, signature = unet_graph(unet, tokens=TOKENS)
    path = save(lower_unet(unet, signature, form), folder)
    latent = (config.in_channels, 4, 8, 8)
    return path, Settings(LCM, latent, guidance_dim=config.time_cond_proj_dim)


def prepare(folder: Path, *, hard: bool, config: UNetConfig = SMALL) -> Exact:
    path, settings = lowered(CHUNKED, hard, folder, config)
    ask = denoiser(path)
    calibration = random_cases(2, TOKENS, 96, seed=100)
    feeds = [one for case in calibration for one in trajectory(ask, case, settings).feeds]
    ranges = calibrate(path, feeds, threads=1)
    return Exact(path, ranges, settings, list(final_latents(ask, CASES, settings)), feeds)


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Exact:
    return prepare(tmp_path_factory.mktemp("hard"), hard=True)


def quantized(exact: Exact, folder: Path, precision: str, **options) -> Path:
    model = ir.load(exact.path)
    quantize_graph(model, precision, ranges=exact.ranges, fused=True, **options)
    return save(model, folder)


@pytest.fixture(scope="module")
def int8(exact: Exact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantized(exact, tmp_path_factory.mktemp("int8"), "int8")


def test_hard_weights_pass_the_gate(exact: Exact, int8: Path) -> None:
    quality = gate(denoiser(int8), exact.latents, CASES, exact.settings, "int8")
    assert quality.cosine > 0.98
    assert quality.worst_db < 60  # else nothing was quantized
    assert int8.stat().st_size < 0.55 * exact.path.stat().st_size


def test_a_wrong_scale_does_not_pass(exact: Exact, int8: Path, tmp_path: Path) -> None:
    model = ir.load(int8)
    name = "input_blocks.1.0.out_layers.3.result.scale"  # no norm behind it hides it
    scale = model.graph.initializers[name]
    scale.const_value = ir.tensor(scale.const_value.numpy() * np.float32(4), name=name)
    bad = denoiser(save(model, tmp_path))
    with pytest.raises(ExecutionError) as caught:
        gate(bad, exact.latents, CASES, exact.settings, "int8")
    assert caught.value.code == "export.quality"


def test_what_runs_is_int8_and_attention_is_not(exact: Exact, int8: Path) -> None:
    ops = kernels(int8, exact.feeds[0])
    convolutions = sum(node.op_type == "Conv" for node in ir.load(int8).graph)
    assert ops.count("QLinearConv") == convolutions - 2  # first and last stay
    assert ops.count("MatMulIntegerToFloat") > 50
    assert {"MultiHeadAttention", "Softmax"} <= set(ops)
    assert "QLinearMatMul" not in ops


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["int8", "int8-dynamic", "mixed", "w8", "w4"])
@pytest.mark.parametrize("hard", [False, True])
def test_the_shape_of_the_built_in_model_passes_every_gate(
    tmp_path: Path, hard: bool, precision: str
) -> None:
    exact = prepare(tmp_path / "exact", hard=hard, config=TINY)
    path = quantized(exact, tmp_path / "stored", precision)
    gate(denoiser(path), exact.latents, CASES, exact.settings, precision)


@pytest.mark.slow
def test_hard_weights_need_the_channel_scales(exact: Exact, tmp_path: Path) -> None:
    figures = []
    for along in (True, False):
        path = quantized(exact, tmp_path / str(along), "int8", along_channels=along)
        latents = final_latents(denoiser(path), CASES, exact.settings)
        figures.append(compare(latents, exact.latents).mean_db)
    assert figures[0] > figures[1] + 1


@pytest.mark.slow
def test_ranges_that_are_too_small_do_not_pass(exact: Exact, tmp_path: Path) -> None:
    def half(spread: Spread) -> Spread:
        return Spread(spread.low * 0.3, spread.high * 0.3, spread.mean, spread.square)

    model = ir.load(exact.path)
    cut = {
        name: Observation(half(seen.source), half(seen.result), seen.values, seen.rank)
        for name, seen in exact.ranges.items()
    }
    quantize_graph(model, "int8", ranges=cut, fused=True)
    with pytest.raises(ExecutionError):
        gate(denoiser(save(model, tmp_path)), exact.latents, CASES, exact.settings, "int8")


@pytest.mark.slow
def test_ranges_of_a_small_clip_hold_for_a_large_one_in_other_pieces(
    exact: Exact, tmp_path: Path
) -> None:
    path, settings = lowered(PORTABLE, True, tmp_path / "portable")
    model = ir.load(path)
    quantize_graph(model, "int8", ranges=exact.ranges)  # observed on 3 and 2 pieces, 4 x 8 x 8
    stored = save(model, tmp_path / "int8")
    large = replace(settings, latent=(settings.latent[0], 7, 16, 16))
    references = list(final_latents(denoiser(path), CASES[:1], large))
    assert gate(denoiser(stored), references, CASES[:1], large, "int8").mean_db > 18
