"""An onnxruntime module and plug-in packages that exist only in a test."""

from __future__ import annotations

from types import SimpleNamespace

WEBGPU, OPENVINO, QNN = (f"{name}ExecutionProvider" for name in ("WebGpu", "OpenVINO", "QNN"))
CPU = "CPUExecutionProvider"


def ep_device(provider: str, kind: str, name: str = "", vendor: str = "Maker") -> SimpleNamespace:
    metadata = {"Description": name} if name else {}
    device = SimpleNamespace(type=f"OrtHardwareDeviceType.{kind}", vendor=vendor, metadata=metadata)
    return SimpleNamespace(ep_name=provider, ep_vendor="Plug", ep_metadata={}, device=device)


class Native:
    """onnxruntime.SessionOptions: keeps what it is told."""

    def __init__(self) -> None:
        self.added: list[tuple] = []

    def add_provider(self, name: str, options: dict) -> None:
        self.added.append((name, options))

    def add_provider_for_devices(self, devices: list, options: dict) -> None:
        kinds = [str(found.device.type).rpartition(".")[2] for found in devices]
        self.added.append((devices[0].ep_name, kinds, options))


class Ort:
    """The module: plug-ins bring their devices when they are registered."""

    def __init__(self, listed: tuple[str, ...] = (), brings: dict[str, list] | None = None) -> None:
        self.listed = [*listed, CPU]
        self.brings = brings or {}
        self.devices = [ep_device(CPU, "CPU")]
        self.registered: list[tuple[str, str]] = []

    def get_available_providers(self) -> list[str]:
        return self.listed

    def get_ep_devices(self) -> list:
        return self.devices

    def register_execution_provider_library(self, name: str, path: str) -> None:
        if path == "broken.so":
            raise OSError("libvulkan.so.1: cannot open shared object file\nmore")
        self.registered.append((name, path))
        self.devices = [*self.devices, *self.brings.get(name, [])]
        if self.brings.get(name):
            self.listed = [*self.listed, name]
