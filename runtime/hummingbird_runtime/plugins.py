"""Execution providers that come as packages of their own beside onnxruntime.

The onnxruntime module is handed in: only ``session`` imports it.
"""

from __future__ import annotations

import importlib
import importlib.util
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hummingbird_runtime.errors import ResourceError, UsageError
from hummingbird_runtime.session_options import CPU


@dataclass(frozen=True)
class Plugin:
    """A package with one execution provider in a shared library."""

    module: str
    package: str
    runs_on: str
    """What it reaches, for people."""
    backend: str | None = None
    """Function of the module that names the library of the option ``backend_path``."""


PLUGINS = {
    "OpenVINOExecutionProvider": Plugin(
        "onnxruntime_ep_openvino", "onnxruntime-ep-openvino", "Intel CPUs, GPUs and NPUs"
    ),
    "WebGpuExecutionProvider": Plugin(
        "onnxruntime_ep_webgpu", "onnxruntime-ep-webgpu", "GPUs through Vulkan, Metal or D3D12"
    ),
    "QNNExecutionProvider": Plugin(
        "onnxruntime_qnn", "onnxruntime-qnn", "Qualcomm NPUs", backend="get_qnn_htp_path"
    ),
}
"""By name of the provider, in the order that ``auto`` prefers them."""

KINDS = ("gpu", "npu", "cpu")
"""Kinds of device, the one that is taken first where a provider has several."""


@dataclass(frozen=True)
class Device:
    """Something that an execution provider runs on."""

    provider: str
    kind: str
    """``gpu``, ``npu`` or ``cpu``; also ``cpu`` for a GPU that software imitates."""
    name: str
    """What its driver calls it, else who made it."""


_lock = threading.Lock()
_registered: set[str] = set()  # a second registration crashes WebGPU's next session


def is_installed(provider: str) -> bool:
    """Whether the package of a plug-in provider can be imported."""
    return importlib.util.find_spec(PLUGINS[provider].module) is not None


def register(ort: Any, provider: str) -> None:
    """Make a plug-in provider known to ONNX Runtime, once for the process.

    Nothing happens for a provider that is no plug-in or that onnxruntime itself contains.

    Raises:
        ResourceError: ``provider.not_installed``, ``provider.bad_library``.
    """
    plugin = PLUGINS.get(provider)
    with _lock:
        if plugin is None or provider in {*_registered, *ort.get_available_providers()}:
            return
        if not is_installed(provider):
            raise ResourceError(
                "provider.not_installed",
                f"got execution provider {provider!r}, its package is not installed",
                hint=f"pip install {plugin.package}",
            )
        try:
            path = importlib.import_module(plugin.module).get_library_path()
            ort.register_execution_provider_library(provider, path)
        except Exception as error:  # a broken native library raises whatever it likes
            raise ResourceError(
                "provider.bad_library",
                f"{provider}: its library cannot be loaded: {_first_line(error)}",
                hint=f"reinstall {plugin.package}; WebGPU on Linux needs the package libvulkan1",
            ) from error
        _registered.add(provider)


def require_listed(asked: Sequence[str], available: Sequence[str]) -> None:
    """Refuse providers that ONNX Runtime or a session does not list.

    Raises:
        ResourceError: ``provider.unavailable``, ``provider.no_device`` for a plug-in.
    """
    for provider in asked:
        if provider in available:
            continue
        if provider in _registered:
            raise ResourceError(
                "provider.no_device",
                f"{provider}: got no device, expected one of {PLUGINS[provider].runs_on}",
                hint="install the driver of the device, or leave --providers out to use the CPU",
            )
        raise ResourceError(
            "provider.unavailable",
            f"got execution provider {provider!r}, available: {', '.join(available)}",
            hint="choose one of these or install the matching onnxruntime package",
        )


def devices(ort: Any) -> list[Device]:
    """What the providers registered so far run on."""
    return [
        Device(found.ep_name, _kind(found), _name(found))
        for found in ort.get_ep_devices()
        if found.ep_name in (CPU, *PLUGINS)  # OpenVINO lists each device again as AUTO
    ]


def add_providers(
    ort: Any, native: Any, asked: Sequence[str], by_name: Mapping[str, Mapping[str, str]]
) -> None:
    """Put providers into an ``onnxruntime.SessionOptions``, in order; the CPU is always last.

    Args:
        ort: the onnxruntime module.
        native: the options.
        asked: names of providers, registered.
        by_name: their options. ``device_type`` (gpu, npu or cpu) picks a plug-in's device.

    Raises:
        UsageError: ``provider.device_type`` for a kind that is not there.
    """
    for provider in asked[: asked.index(CPU)] if CPU in asked else asked:
        options = dict(by_name.get(provider, {}))
        if provider not in _registered:  # part of onnxruntime itself
            native.add_provider(provider, options)
            continue
        found = _choose(provider, ort.get_ep_devices(), options.pop("device_type", None))
        native.add_provider_for_devices(found, {**_defaults(provider), **options})


def _choose(provider: str, listed: Sequence[Any], wanted: str | None) -> list[Any]:
    ours = [found for found in listed if found.ep_name == provider]
    kinds = [kind for kind in KINDS if any(_kind(found) == kind for found in ours)]
    if wanted is not None and wanted.lower() not in kinds:
        raise UsageError(
            "provider.device_type",
            f"{provider}, got device_type {wanted!r}, this machine has {', '.join(kinds)}",
            hint="run `hummingbird doctor` to see the devices",
        )
    kind = wanted.lower() if wanted is not None else kinds[0]
    return [next(found for found in ours if _kind(found) == kind)]


def _defaults(provider: str) -> dict[str, str]:
    plugin = PLUGINS.get(provider)
    if plugin is None or plugin.backend is None:
        return {}
    return {"backend_path": str(getattr(importlib.import_module(plugin.module), plugin.backend)())}


def _kind(found: Any) -> str:
    return str(found.device.type).rsplit(".", 1)[-1].lower()


def _name(found: Any) -> str:
    described = {**dict(found.device.metadata), **dict(found.ep_metadata)}
    for key in ("FULL_DEVICE_NAME", "Description"):
        if described.get(key):
            return str(described[key])
    return str(found.device.vendor or found.ep_vendor)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
