"""providers="auto": one row for each kind of machine and bundle."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_graphs import FakeBackend
from plugin_world import CPU, OPENVINO, QNN, WEBGPU

from hummingbird_runtime import TextToVideoPipeline, opening
from hummingbird_runtime.auto_providers import Machine, choose
from hummingbird_runtime.errors import UsageError
from hummingbird_runtime.plugins import Device

CUDA = "CUDAExecutionProvider"
RADEON = Device(WEBGPU, "gpu", "Radeon 780M")
ARC = Device(OPENVINO, "gpu", "Arc")
NPU = Device(QNN, "npu", "Hexagon")
SOFTWARE = Device(WEBGPU, "cpu", "SwiftShader")


@pytest.mark.parametrize(
    ("listed", "devices", "target", "precision", "provider", "said"),
    [
        ((), (), "portable", "fp32", CPU, "onnxruntime-ep-webgpu"),
        ((), (RADEON,), "portable", "fp32", WEBGPU, "Radeon 780M (gpu)"),
        ((), (RADEON, ARC), "portable", "fp32", OPENVINO, "Arc"),
        ((CUDA,), (RADEON,), "portable", "fp32", CUDA, "first GPU"),
        ((CUDA,), (RADEON,), "igpu-webgpu", "fp16-storage", WEBGPU, "made for it"),
        ((CUDA,), (RADEON,), "cpu", "fp32", CPU, "made for the CPU"),
        ((), (RADEON,), "portable", "int8", CPU, "int8"),
        ((), (NPU,), "portable", "fp32", CPU, "no GPU provider"),
        ((), (NPU,), "android-qnn", "int8", QNN, "Hexagon (npu)"),
        ((WEBGPU,), (SOFTWARE,), "portable", "fp32", CPU, "driver"),
        ((), (), "igpu-webgpu", "fp32", CPU, "no GPU provider"),
    ],
)
def test_the_choice_and_its_reason(
    listed: tuple, devices: tuple, target: str, precision: str, provider: str, said: str
) -> None:
    choice = choose(Machine((*listed, CPU), devices), target, {precision})
    assert choice.providers[0] == provider
    assert choice.providers[-1] == CPU
    assert len(choice.providers) == len(set(choice.providers))
    assert said in choice.why
    assert "\n" not in choice.why


def test_a_broken_plugin_is_told() -> None:
    choice = choose(Machine((CPU,), (), {WEBGPU: "its library cannot be loaded"}), "portable", ())
    assert choice.providers == (CPU,)
    assert "cannot be loaded" in choice.why


def test_a_pipeline_tells_what_was_chosen(
    tiny_bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "machine", lambda: Machine((CPU,), (RADEON,)))
    pipe = TextToVideoPipeline.from_pretrained(
        tiny_bundle_path,
        providers="auto",
        provider_options={CUDA: {"device_id": 1}},  # of a provider that another machine would take
        preload=False,
    )
    assert pipe.graphs.providers == (WEBGPU, CPU)
    assert "Radeon 780M" in pipe.graphs.why
    named = TextToVideoPipeline.from_pretrained(tiny_bundle_path, preload=False)
    assert (named.graphs.providers, named.graphs.why) == ((CPU,), "")


def test_another_backend_has_no_auto(tiny_bundle_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        TextToVideoPipeline.from_pretrained(
            tiny_bundle_path, providers="auto", backend=FakeBackend()
        )
    assert caught.value.code == "provider.auto"
