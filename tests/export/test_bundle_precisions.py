"""Bundles in every precision below float32: what they hold, how small they are, that they draw."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import quick_export

from hummingbird_export.gates import GATES, snr_db
from hummingbird_export.precision import precision_plan
from hummingbird_export.quality import TEXT_GATES_DB
from hummingbird_export.targets import TARGETS, find_target
from hummingbird_export.torch_pipeline import TorchClip, TorchPipeline
from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.errors import UsageError
from hummingbird_runtime.pipeline import TextToVideoPipeline

PROMPT = "a large blue square"

QUICK = [("cpu", "int8")]
ALL = [
    (target.name, precision)
    for target in TARGETS
    if target.name in ("portable", "cpu", "cpu-lowmem", "android-qnn", "web")
    for precision in target.precisions
    if precision in GATES
]

NEEDED = {
    "int8": {"ai.onnx:QuantizeLinear", "ai.onnx:DequantizeLinear"},
    "mixed": {"ai.onnx:QuantizeLinear", "ai.onnx:DequantizeLinear"},
    "w8": {"ai.onnx:DequantizeLinear"},
}
"""Operators of the U-Net by precision, whatever the target."""

BYTES = {"int8": 1.15, "int8-dynamic": 1.15, "w8": 1.15, "mixed": 1.0, "w4": 0.85}
"""Most bytes per weight of the small U-Net: scales and small layers that stay float32 included."""

BITS = {"FLOAT": 32, "FLOAT16": 16, "INT32": 32, "INT8": 8, "UINT8": 8, "INT4": 4, "UINT4": 4}


def stored_bytes(path: Path) -> float:
    """Bytes of a graph's weights and scales; shapes and the table of sinusoids do not count."""
    return sum(
        value.size * BITS[value.dtype.name] / 8
        for name, value in ir.load(path).graph.initializers.items()
        for value in [value.const_value]
        if name != "sinusoids" and value.dtype != ir.DataType.INT64
    )


@pytest.fixture(scope="module")
def clip(quick_bundle: Path) -> TorchClip:
    """Torch's final latent and frames for the prompt."""
    opened = Bundle.open(quick_bundle)
    oracle = TorchPipeline(*quick_export.networks(), opened.scheduler, opened.manifest.model)
    with TextToVideoPipeline.from_pretrained(quick_bundle, threads=1) as pipe:
        return oracle(pipe.tokenizer.encode(PROMPT).ids, seed=5)


@pytest.mark.parametrize(
    ("target", "precision"),
    [pytest.param(*pair, marks=() if pair in QUICK else pytest.mark.slow) for pair in ALL],
)
def test_a_bundle_is_small_keeps_its_gates_and_draws(
    target: str, precision: str, tmp_path: Path, tokenizer_folder: Path, clip: TorchClip
):
    told: list[str] = []
    out = quick_export.export(
        tmp_path / "out", tokenizer_folder, target=target, precision=precision, note=told.append
    )
    chosen, manifest = find_target(target), Bundle.open(out).manifest
    assert manifest.target == target
    unet, text, decoder = (
        manifest.graphs[role] for role in ("unet", "text_encoder", "vae_decoder")
    )
    plan = precision_plan(precision)
    assert (unet.precision, text.precision) == (precision, plan["text_encoder"])
    kept = any("stays in fp16-storage" in text for text in told)
    assert decoder.precision == ("fp16-storage" if kept else plan["vae_decoder"])
    for role, graph in manifest.graphs.items():
        assert set(graph.ops) <= chosen.operators
        assert graph.session == chosen.settings(role, graph.precision)
        assert graph.parity["cases"] >= 5 or chosen.static_sizes
    gate = GATES[precision]
    assert unet.quality["snr_db_mean"] >= gate.mean_db
    assert gate.worst_db <= unet.quality["snr_db_worst"] < 100  # something was quantized
    assert unet.quality["cosine"] > 0.9
    assert TEXT_GATES_DB[text.precision] <= text.quality["snr_db_worst"] < 100
    assert NEEDED.get(precision, set()) <= set(unet.ops)
    if precision in ("w4", "mixed"):
        initializers = ir.load(out / "unet" / "model.onnx").graph.initializers.values()
        fours = {ir.DataType.INT4, ir.DataType.UINT4}
        assert "com.microsoft:MatMulNBits" in unet.ops or {v.dtype for v in initializers} & fours
    weights = sum(p.numel() for p in quick_export.networks()[0].parameters())
    assert stored_bytes(out / "unet" / "model.onnx") < BYTES[precision] * weights
    measured = json.loads((out / "measurements.json").read_bytes())["graphs"]
    assert measured["unet"]["run_seconds_median"] > 0
    with TextToVideoPipeline.from_pretrained(out, threads=1) as pipe:
        latents = pipe(PROMPT, seed=5, output_type="latent")
        video = pipe(PROMPT, seed=5)
    assert video.frames.shape == clip.frames.shape
    assert len(np.unique(video.frames)) > 20
    # A prompt that no gate has seen may be a little worse than the worst of those.
    assert snr_db(latents, clip.latents) > gate.worst_db - 4


def test_a_precision_that_the_target_does_not_take_is_refused_before_any_work(
    tmp_path: Path, tokenizer_folder: Path
):
    with pytest.raises(UsageError, match="target ios-coreml: got precision w4") as caught:
        quick_export.export(tmp_path / "out", tokenizer_folder, target="ios-coreml", precision="w4")
    assert caught.value.code == "export.target_precision"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_every_precision_of_a_target_is_planned_for_every_graph(target):
    for precision in target.precisions:
        plan = precision_plan(precision)
        assert {"unet", "text_encoder", "vae_decoder", "vae_decoder_tiny", "vae_encoder"} <= set(
            plan
        )
        assert plan["unet"] == precision
