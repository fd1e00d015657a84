"""Plug-in providers: registered once, picked by device, refused with the fix."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from plugin_world import CPU, OPENVINO, QNN, WEBGPU, Native, Ort, ep_device

from hummingbird_runtime import plugins
from hummingbird_runtime.errors import HummingbirdError, ResourceError, UsageError


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing registered, every package importable."""
    monkeypatch.setattr(plugins, "_registered", set())
    for plugin in plugins.PLUGINS.values():
        module = SimpleNamespace(
            get_library_path=lambda name=plugin.module: f"{name}.so",
            get_qnn_htp_path=lambda: "htp.so",
            __spec__=SimpleNamespace(),
        )
        monkeypatch.setitem(sys.modules, plugin.module, module)


def refusal(call) -> HummingbirdError:
    with pytest.raises(HummingbirdError) as caught:
        call()
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_plugin_is_registered_once_for_the_process() -> None:
    ort = Ort(brings={WEBGPU: [ep_device(WEBGPU, "GPU")]})
    plugins.register(ort, WEBGPU)
    plugins.register(ort, WEBGPU)
    assert ort.registered == [(WEBGPU, "onnxruntime_ep_webgpu.so")]


def test_one_that_found_no_device_is_not_registered_again() -> None:
    ort = Ort()
    plugins.register(ort, WEBGPU)
    plugins.register(ort, WEBGPU)
    assert len(ort.registered) == 1
    error = refusal(lambda: plugins.require_listed([WEBGPU], ort.get_available_providers()))
    assert isinstance(error, ResourceError)
    assert error.code == "provider.no_device"
    assert "Vulkan" in error.message


def test_what_onnxruntime_contains_is_left_alone() -> None:
    ort = Ort(listed=(WEBGPU, "CUDAExecutionProvider"))
    for provider in (WEBGPU, "CUDAExecutionProvider", CPU, "NoSuchExecutionProvider"):
        plugins.register(ort, provider)
    assert not ort.registered
    plugins.require_listed([WEBGPU, CPU], ort.get_available_providers())
    missing = refusal(lambda: plugins.require_listed(["NoSuchExecutionProvider"], ort.listed))
    assert missing.code == "provider.unavailable"
    assert WEBGPU in missing.message


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins.importlib.util, "find_spec", lambda _: None)
    error = refusal(lambda: plugins.register(Ort(), WEBGPU))
    assert error.code == "provider.not_installed"
    assert error.hint == "pip install onnxruntime-ep-webgpu"


def test_a_library_that_does_not_load_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = SimpleNamespace(get_library_path=lambda: "broken.so", __spec__=SimpleNamespace())
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_webgpu", broken)
    ort = Ort(brings={WEBGPU: [ep_device(WEBGPU, "GPU")]})
    error = refusal(lambda: plugins.register(ort, WEBGPU))
    assert error.code == "provider.bad_library"
    assert "libvulkan.so.1" in error.message
    assert "libvulkan1" in error.hint
    broken.get_library_path = lambda: "mended.so"
    plugins.register(ort, WEBGPU)
    assert ort.registered == [(WEBGPU, "mended.so")]


INTEL = [ep_device(OPENVINO, "CPU", "Xeon"), ep_device(OPENVINO, "NPU"), ep_device(OPENVINO, "GPU")]


@pytest.mark.parametrize(
    ("wanted", "kind"),
    [(None, "GPU"), ("npu", "NPU"), ("CPU", "CPU")],
)
def test_the_gpu_is_taken_unless_another_device_is_asked_for(wanted: str | None, kind: str) -> None:
    ort, native = Ort(brings={OPENVINO: INTEL}), Native()
    plugins.register(ort, OPENVINO)
    options = {"precision": "FP32"} | ({} if wanted is None else {"device_type": wanted})
    plugins.add_providers(ort, native, [OPENVINO, CPU], {OPENVINO: options})
    assert native.added == [(OPENVINO, [kind], {"precision": "FP32"})]


def test_a_device_that_is_not_there_lists_those_that_are() -> None:
    ort = Ort(brings={WEBGPU: [ep_device(WEBGPU, "GPU")]})
    plugins.register(ort, WEBGPU)
    asked = {WEBGPU: {"device_type": "npu"}}
    error = refusal(lambda: plugins.add_providers(ort, Native(), [WEBGPU], asked))
    assert isinstance(error, UsageError)
    assert (error.code, "has gpu" in error.message) == ("provider.device_type", True)


def test_providers_keep_their_order_and_end_at_the_cpu() -> None:
    ort, native = Ort(listed=("A", "B"), brings={QNN: [ep_device(QNN, "NPU")]}), Native()
    plugins.register(ort, QNN)
    plugins.add_providers(ort, native, ["B", QNN, "A", CPU], {"A": {"x": "1"}})
    assert native.added == [
        ("B", {}),
        (QNN, ["NPU"], {"backend_path": "htp.so"}),
        ("A", {"x": "1"}),
    ]
    nothing = Native()
    plugins.add_providers(ort, nothing, [CPU, "A"], {})
    assert not nothing.added


def test_devices_are_named_by_their_driver_and_listed_once() -> None:
    auto = ep_device(f"{OPENVINO}.AUTO", "GPU")
    ort = Ort(brings={OPENVINO: [*INTEL[:2], auto], WEBGPU: [ep_device(WEBGPU, "GPU", "Radeon")]})
    plugins.register(ort, OPENVINO)
    plugins.register(ort, WEBGPU)
    found = [(device.provider, device.kind, device.name) for device in plugins.devices(ort)]
    assert found == [
        (CPU, "cpu", "Maker"), (OPENVINO, "cpu", "Xeon"), (OPENVINO, "npu", "Maker"),
        (WEBGPU, "gpu", "Radeon"),
    ]  # fmt: skip
