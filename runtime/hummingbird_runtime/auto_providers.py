"""``providers="auto"``: which execution providers fit a bundle and a machine, and why."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from hummingbird_runtime.plugins import PLUGINS, Device
from hummingbird_runtime.session_options import CPU

AUTO = "auto"

BUILT_IN = (
    "CUDAExecutionProvider",
    "MIGraphXExecutionProvider",
    "CoreMLExecutionProvider",
    "DmlExecutionProvider",
)
"""GPU providers that an onnxruntime package may itself contain, the fastest first."""

TARGETS = {
    "igpu-webgpu": "WebGpuExecutionProvider",
    "igpu-directml": "DmlExecutionProvider",
    "igpu-openvino": "OpenVINOExecutionProvider",
    "igpu-migraphx": "MIGraphXExecutionProvider",
    "android-qnn": "QNNExecutionProvider",
    "ios-coreml": "CoreMLExecutionProvider",
}
"""The provider that a bundle of a target is made for."""

CPU_TARGETS = ("cpu", "cpu-lowmem", "android-cpu")


@dataclass(frozen=True)
class Choice:
    """Providers in order, and the reason in one line."""

    providers: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Machine:
    """What there is to choose from."""

    listed: Sequence[str]
    """Providers that ONNX Runtime lists, plug-ins included."""
    devices: Sequence[Device] = ()
    """What the plug-ins found."""
    broken: Mapping[str, str] = field(default_factory=dict)
    """Plug-ins that are installed and cannot be loaded, and why."""


def choose(machine: Machine, target: str, precisions: Collection[str]) -> Choice:
    """The providers for a bundle.

    A bundle made for one provider gets it where it is there; one made for the CPU, or with int8
    weights, gets the CPU; any other gets a GPU if there is one. NPUs are never chosen for a bundle
    that was not made for them: they take fixed sizes only. Behind each comes the CPU, for the
    nodes that are left.

    Args:
        machine: what there is.
        target: of the bundle.
        precisions: of its graphs.
    """
    on = {device.provider: device for device in machine.devices if device.kind != "cpu"}
    own = [p for p in BUILT_IN if p in machine.listed]
    made_for = TARGETS.get(target)
    if made_for is not None and (made_for in own or made_for in on):
        return _before_cpu(made_for, on, f"the bundle is made for it ({target})")
    if target in CPU_TARGETS:
        return Choice((CPU,), f"the bundle is made for the CPU ({target})")
    if "int8" in precisions:
        return Choice((CPU,), "int8 graphs are made for the CPU's integer instructions")
    gpus = [*own, *(p for p in PLUGINS if p in on and on[p].kind == "gpu")]
    if gpus:
        return _before_cpu(gpus[0], on, "the first GPU provider that is there")
    if machine.broken:
        return Choice((CPU,), "; ".join(machine.broken.values()))
    if any(provider in machine.listed for provider in PLUGINS):
        return Choice((CPU,), "no provider found a GPU; if there is one, its driver is missing")
    plugin = PLUGINS["WebGpuExecutionProvider"]
    return Choice(
        (CPU,), f"no GPU provider is installed; {plugin.package} reaches {plugin.runs_on}"
    )


def _before_cpu(provider: str, on: Mapping[str, Device], reason: str) -> Choice:
    where = f" on {on[provider].name} ({on[provider].kind})" if provider in on else ""
    return Choice((provider, CPU), f"{provider}{where}: {reason}; the CPU takes what it leaves")
