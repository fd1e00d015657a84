"""The machine and the software that a measurement ran on, as JSON values; and its load right now.

Linux tells most of this under /proc and /sys; what a system does not tell is None or absent.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hummingbird_bench.energy import read_energy
from hummingbird_runtime.system_memory import read_memory

ROOT = Path("/")

FLAGS = (
    "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "sve", "bf16",
)  # fmt: skip
"""Instruction sets that decide how fast a network runs."""

PACKAGES = (
    "hummingbird-edge", "numpy", "onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino",
    "onnxruntime-directml", "onnx", "torch", "openvino", "av",
)  # fmt: skip

TIMING_PREFIXES = (
    "OMP_", "MKL_", "KMP_", "GOMP_", "OPENBLAS_", "BLIS_", "VECLIB_", "NUMEXPR_", "ORT_",
    "ONNXRUNTIME", "OV_", "OPENVINO_", "TORCH", "PYTORCH", "INDUCTOR", "MALLOC_", "GLIBC_TUNABLES",
    "JEMALLOC", "LD_PRELOAD", "DYLD_INSERT", "CUDA_", "NVIDIA_TF32",
    "PYTHONDEVMODE", "PYTHONMALLOC", "PYTHONTRACEMALLOC", "PYTHONASYNCIODEBUG",
    "PYTHONPROFILEIMPORTTIME", "PYTHONDUMPREFS", "PYTHONFAULTHANDLER", "PYTHONDONTWRITEBYTECODE",
    "COVERAGE_",
)  # fmt: skip
"""How the names of environment variables begin that change how long a run takes."""


@dataclass(frozen=True)
class Load:
    """How busy the machine is with other things."""

    average: float
    """load of one minute; 0 where the system does not tell"""
    steal_ticks: int
    """1/100 s of processor time since boot that the hypervisor gave to others; 0 likewise"""


def read_load(root: Path = ROOT) -> Load:
    """The load now.

    Args:
        root: where /proc lies.
    """
    try:
        average = os.getloadavg()[0]
    except (OSError, AttributeError):  # Windows has none
        average = 0.0
    words = _line(root / "proc/stat", "cpu ").split()
    return Load(average, int(words[8]) if len(words) > 8 else 0)


def read_environment(root: Path = ROOT) -> dict[str, Any]:
    """Everything about this machine that a reader of a figure must know.

    Args:
        root: where /proc and /sys lie.

    Returns:
        JSON values under processor, memory, system, software, variables and load.
    """
    load = read_load(root)
    energy = "readable" if read_energy(root / "sys/class/powercap") else "not measured"
    return {
        "processor": _processor(root),
        "memory": {
            "total_bytes": _kilobytes(root, "MemTotal:"),
            "available_bytes": read_memory(root=root).available,
            "swap_bytes": _kilobytes(root, "SwapTotal:"),
        },
        "system": {
            "name": platform.system(),
            "release": platform.release(),
            "python": platform.python_version(),
            "implementation": platform.python_implementation(),
        },
        "software": _versions(),
        "variables": {
            "removed": sorted(name for name in os.environ if name.startswith(TIMING_PREFIXES)),
        },
        "load": {"average": load.average, "steal_ticks": load.steal_ticks},
        "energy": energy,
    }


def _processor(root: Path) -> dict[str, Any]:
    info = root / "proc/cpuinfo"
    flags = set((_line(info, "flags") or _line(info, "Features")).partition(":")[2].split())
    model = _line(info, "model name").partition(":")[2].strip()
    governor = root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    return {
        "model": model or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "flags": [name for name in FLAGS if name in flags],
        "logical_cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "quota_cores": _quota(root),
        "governor": _text(governor) or None,
        "virtual": "hypervisor" in flags,
    }


def _quota(root: Path) -> float | None:
    """Cores that a control group allows; None where it sets no limit."""
    words = _text(root / "sys/fs/cgroup/cpu.max").split()
    if len(words) == 2 and words[0].isdigit():
        return int(words[0]) / int(words[1])
    return None


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _kilobytes(root: Path, name: str) -> int | None:
    words = _line(root / "proc/meminfo", name).split()
    return int(words[1]) << 10 if len(words) > 1 else None


def _line(path: Path, start: str) -> str:
    return next((line for line in _text(path).splitlines() if line.startswith(start)), "")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
