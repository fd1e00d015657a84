"""The doctor's look at execution providers: their devices, and what each would run."""

from __future__ import annotations

from pathlib import Path

from hummingbird_runtime.auto_providers import Machine, choose
from hummingbird_runtime.errors import HummingbirdError
from hummingbird_runtime.finding import Finding
from hummingbird_runtime.placement import count
from hummingbird_runtime.plugins import PLUGINS, Device, is_installed
from hummingbird_runtime.session_options import CPU, SessionOptions


def examine_devices() -> list[Finding]:
    """Providers, one finding for each device of a plug-in, and what ``auto`` would take."""
    try:
        from hummingbird_runtime.session import machine

        here = machine()
    except ImportError:
        return [Finding("providers", "problem", "none", "pip install -U onnxruntime")]
    found = [Finding("providers", "ok", ", ".join(here.listed))]
    for provider in PLUGINS:
        found += _plugin(provider, here)
    found.append(Finding("auto", "ok", choose(here, "portable", ("fp32",)).why))
    return found


def _plugin(provider: str, here: Machine) -> list[Finding]:
    plugin, short = PLUGINS[provider], provider.removesuffix("ExecutionProvider")
    if provider in here.broken:
        fix = f"reinstall {plugin.package}; WebGPU on Linux needs the package libvulkan1"
        return [Finding(short, "note", here.broken[provider], fix)]
    if not is_installed(provider):
        fix = f"pip install {plugin.package} ({plugin.runs_on})"
        return [Finding(short, "note", "not installed", fix)]
    ours = [device for device in here.devices if device.provider == provider]
    if not ours:
        return [Finding(short, "note", "no device", f"install a driver ({plugin.runs_on})")]
    return [_device(device, short) for device in ours]


def _device(device: Device, short: str) -> Finding:
    options = SessionOptions(
        providers=(device.provider, CPU),
        provider_options={device.provider: {"device_type": device.kind}},
    )
    try:
        taken = _nodes_of_the_unet(options)
    except HummingbirdError as error:
        found = f"{device.kind}, {device.name}: {error.message}"
        return Finding(short, "note", found, error.hint or "update its driver")
    found = f"{device.kind}, {device.name}, runs {taken} nodes of the built-in U-Net"
    return Finding(short, "ok", found)


def _nodes_of_the_unet(options: SessionOptions) -> str:
    from hummingbird_runtime.bundle import Bundle
    from hummingbird_runtime.session import OnnxRuntimeBackend

    session = OnnxRuntimeBackend().open(Path(Bundle.open().path("unet")), options)
    try:
        where = session.placement
        return f"{count(where, options.providers[0])} of {count(where)}"
    finally:
        session.close()
