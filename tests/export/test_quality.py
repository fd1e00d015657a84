"""Judges of graphs below float32: what they calibrate on, where they refuse, what is kept then."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import quick_export

from hummingbird_export import compile as compiling
from hummingbird_export import networks, quality
from hummingbird_export.gates import CASES, GATES
from hummingbird_export.quality import DecoderJudge, TextJudge, UNetJudge
from hummingbird_export.quantize import quantize_graph
from hummingbird_export.trajectory import Settings, random_cases
from hummingbird_export.wrappers import Feeds
from hummingbird_runtime.errors import ExecutionError
from hummingbird_runtime.schedule import SchedulerConfig

SETTINGS = Settings(SchedulerConfig(), latent=(4, 3, 2, 2), steps=4)
CODE = "export.quality"


def denoise(feeds: Feeds) -> np.ndarray:
    """Some smooth function of everything that a U-Net is asked."""
    prompt = float(feeds["encoder_hidden_states"].mean())
    return np.tanh(feeds["sample"] + prompt + 1e-3 * float(feeds["timestep"]))


def unet_judge(*, force: bool = False) -> UNetJudge:
    judge = UNetJudge(random_cases(CASES, 5, 6), SETTINGS, force=force)
    judge.prepare(denoise)
    return judge


def off(size: float):
    """The same network with a relative error of every output."""
    return lambda feeds: denoise(feeds) * np.float32(1 + size)


def test_calibration_sees_half_of_the_gates_clips_step_by_step():
    asked = []

    def run(feeds: Feeds) -> np.ndarray:
        asked.append(feeds)
        return denoise(feeds)

    judge = UNetJudge(random_cases(CASES, 5, 6), SETTINGS)
    feeds = judge.prepare(run)
    assert len(asked) == 4 * CASES
    assert [id(one) for one in feeds] == [id(one) for one in asked[: 4 * 4]]
    assert len({int(one["timestep"]) for one in feeds}) == 4
    assert len(judge.latents) == CASES
    assert judge.latents[0].shape == (1, 4, 3, 2, 2)
    assert not np.array_equal(judge.latents[0], judge.latents[1])


@pytest.mark.parametrize("precision", GATES)
def test_a_u_net_is_held_to_the_gate_of_its_precision(precision: str):
    judge = unet_judge()
    exact = judge.judge(denoise, precision)
    assert exact == {"snr_db_mean": 200.0, "snr_db_worst": 200.0, "cosine": 1.0}
    good, bad = judge.judge(off(0.002), precision), off(1.5)
    assert GATES[precision].mean_db < good["snr_db_mean"] < 200
    with pytest.raises(ExecutionError, match=f"{precision} U-Net: .* expected at least") as caught:
        judge.judge(bad, precision)
    assert caught.value.code == CODE
    assert judge.tolerance(precision) < 1  # a graph of another network has 1 or more


def test_force_tells_the_figures_and_lets_them_pass():
    judge = unet_judge(force=True)
    figures = judge.judge(off(1.5), "int8")
    assert figures["snr_db_mean"] < GATES["int8"].mean_db
    assert judge.tolerance("int8") > 1


def test_numbers_that_are_not_finite_pass_no_force():
    with pytest.raises(ExecutionError) as caught:
        unet_judge(force=True).judge(lambda feeds: denoise(feeds) * np.float32("nan"), "int8")
    assert caught.value.code == "numeric.non_finite"


# ---- decoder ----


def paint(feeds: Feeds) -> np.ndarray:
    """Frames of 4 x 4 pixels, some of them beyond what is shown."""
    latent = feeds["latent_sample"]
    return np.repeat(np.repeat(1.5 * np.tanh(latent[:, :3]), 2, axis=2), 2, axis=3)


def decoder_judge(frames: int = 5) -> tuple[DecoderJudge, list[Feeds]]:
    rng = np.random.default_rng(0)
    latents = [rng.standard_normal((1, 4, frames, 2, 2), np.float32) for _ in range(3)]
    judge = DecoderJudge(latents)
    return judge, judge.prepare(paint)


def test_a_decoder_is_judged_on_the_first_middle_and_last_frame_of_every_clip():
    judge, feeds = decoder_judge()
    assert len(judge.frames) == 9
    assert len(feeds) == 5  # every second one calibrates
    np.testing.assert_array_equal(feeds[1]["latent_sample"], judge.latents[0][:, :, 4])
    assert len(decoder_judge(frames=1)[0].frames) == 3
    assert judge.judge(paint, "int8") == {
        "psnr_db_mean": 120.0, "psnr_db_worst": 120.0, "colour_shift": 0.0,
    }  # fmt: skip


def checkered(size: float, shift: float = 0.0):
    """Frames with errors of one size and either sign, and with another mean colour."""
    signs = np.where(np.indices((4, 4)).sum(0) % 2, 1, -1).astype(np.float32)

    def run(feeds: Feeds) -> np.ndarray:
        return 0.5 * paint(feeds) + np.float32(size) * signs + np.float32(shift)

    return run


def checkered_judge() -> DecoderJudge:
    judge, _ = decoder_judge()
    judge.prepare(checkered(0.0))  # at most 0.75: nothing is clipped
    return judge


def test_peak_noise_and_colour_are_as_computed_by_hand():
    figures = checkered_judge().judge(checkered(0.05), "int8")
    assert figures["psnr_db_worst"] == pytest.approx(-20 * np.log10(0.05 / 2), abs=0.01)
    assert figures["colour_shift"] == pytest.approx(0, abs=1e-5)
    figures = checkered_judge().judge(checkered(0.0, shift=0.006), "int8")
    assert figures["colour_shift"] == pytest.approx(0.003, abs=1e-5)


@pytest.mark.parametrize(
    ("size", "shift"), [(0.08, 0.0), (0.0, 0.009), (0.0, -0.009)], ids=["noise", "up", "down"]
)
def test_a_decoder_below_its_gate_is_refused(size: float, shift: float):
    with pytest.raises(ExecutionError, match="int8 decoder: frames against float32") as caught:
        checkered_judge().judge(checkered(size, shift), "int8")
    assert caught.value.code == CODE
    assert "fp16-storage" in caught.value.hint


def test_what_is_beyond_white_does_not_count():
    judge, _ = decoder_judge()
    judge.prepare(lambda feeds: paint(feeds) * 0 + 2)
    assert judge.judge(lambda feeds: paint(feeds) * 0 + 9, "int8")["psnr_db_worst"] == 120.0


# ---- text tower ----


def embed(feeds: Feeds) -> np.ndarray:
    return np.sin(feeds["input_ids"][..., None] * np.arange(1, 9)).astype(np.float32)


@pytest.mark.parametrize(("precision", "least"), quality.TEXT_GATES_DB.items())
def test_embeddings_are_held_to_the_gate(precision: str, least: float):
    judge = TextJudge([np.array([[1, 5, i]]) for i in range(4)])
    assert len(judge.prepare(embed)) == 4
    just = 10 ** (-(least + 0.2) / 20)
    figures = judge.judge(lambda feeds: embed(feeds) * np.float32(1 + just), precision)
    assert figures["snr_db_worst"] == pytest.approx(least + 0.2, abs=0.02)
    with pytest.raises(ExecutionError, match=f"{precision} text encoder") as caught:
        judge.judge(lambda feeds: embed(feeds) * np.float32(1 + 1.1 * just), precision)
    assert caught.value.code == CODE


# ---- what becomes of a graph that misses its gate ----


def spoil(monkeypatch: pytest.MonkeyPatch, role: str) -> None:
    """Make the scale of one layer of a quantized graph wrong: it gives three times too much."""

    def wrong(model: ir.Model, precision: str, **options):
        report = quantize_graph(model, precision, **options)
        if model.graph.name == role:
            layer = next(name for name, mode in reversed(report.plan.items()) if mode == "int8")
            scale = model.graph.initializers[f"{layer}.weight.scale"]
            scale.const_value = ir.tensor(3 * scale.const_value.numpy(), name=scale.name)
        return report

    monkeypatch.setattr(compiling, "quantize_graph", wrong)


def test_a_wrong_scale_in_a_u_net_is_refused(
    tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    job = quick_export.job(tmp_path, "cpu")
    subject = quick_export.subject(job, tokenizer_folder)
    spoil(monkeypatch, "unet")
    parts = {"unet": quick_export.networks()[0]}
    with pytest.raises(ExecutionError) as caught:
        networks.compile_networks(job, parts, {"unet": "int8"}, subject)
    assert caught.value.code == CODE
    assert not list(tmp_path.glob("work-*"))


@pytest.mark.slow
def test_force_keeps_a_u_net_below_its_gate_and_states_its_figures(
    tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    job = quick_export.job(tmp_path, "cpu")
    subject = quick_export.subject(job, tokenizer_folder, force=True)
    spoil(monkeypatch, "unet")
    parts = {"unet": quick_export.networks()[0]}
    graph = networks.compile_networks(job, parts, {"unet": "int8"}, subject)["unet"][0].graph
    assert graph.quality["snr_db_mean"] < GATES["int8"].mean_db
    assert graph.parity["relative_l2"] > 0.05
    assert (tmp_path / graph.path).is_file()


def test_a_decoder_below_its_gate_stays_in_float16_and_that_is_said(
    tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    told: list[str] = []
    job = quick_export.job(tmp_path, "cpu", note=told.append)
    latent = np.random.default_rng(0).standard_normal((1, 4, 3, 4, 4), np.float32)
    monkeypatch.setattr(networks, "_judge", lambda *arguments: DecoderJudge([latent, -latent]))
    monkeypatch.setattr(quality, "LEAST_PSNR_DB", 119.0)
    with quick_export.traced_once():
        compiled = networks.compile_networks(
            job,
            {"vae_decoder": quick_export.networks()[1]},
            {"vae_decoder": "int8"},
            quick_export.subject(job, tokenizer_folder),
        )
    decoder = compiled["vae_decoder"][0].graph
    assert decoder.precision == "fp16-storage"
    assert decoder.quality == {}
    assert decoder.parity["relative_l2"] < 1e-4
    assert decoder.parity["weights_relative_l2"] > 0
    assert not any("QuantizeLinear" in op for op in decoder.ops)
    (line,) = [text for text in told if "fp16-storage" in text]
    assert "int8 decoder: frames against float32, got" in line
    assert "expected at least 119 dB" in line
    left = {path.name for path in (tmp_path / "vae_decoder").iterdir()}
    assert left == {"model.onnx"}


def test_a_text_encoder_below_its_gate_stays_in_float16_and_that_is_said(
    tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    told: list[str] = []
    job = quick_export.job(tmp_path, "cpu", note=told.append)
    monkeypatch.setattr(quality, "TEXT_GATES_DB", {"w8": 119.0})
    with quick_export.traced_once():
        compiled = networks.compile_networks(
            job,
            {"text_encoder": quick_export.networks()[2]},
            {"text_encoder": "w8"},
            quick_export.subject(job, tokenizer_folder),
        )
    assert compiled["text_encoder"][0].graph.precision == "fp16-storage"
    (line,) = [text for text in told if "fp16-storage" in text]
    assert line.startswith("w8 text encoder: embeddings against float32, got SNR")


def test_other_errors_of_the_decoder_are_not_swallowed(
    tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    def broken(*arguments, **options):
        raise ExecutionError("export.verify", "graph vae_decoder: wrong", hint="")

    job = quick_export.job(tmp_path, "cpu")
    monkeypatch.setattr("hummingbird_export.networks.compile_graph", broken)
    vae = quick_export.networks()[1]
    with pytest.raises(ExecutionError, match="wrong"):
        networks.compile_networks(
            job, {"vae_decoder": vae}, {"vae_decoder": "int8"},
            quick_export.subject(job, tokenizer_folder),
        )  # fmt: skip
