"""What this machine has and lacks: versions, processor, memory, disk, extras, the built-in bundle.

Every finding carries its fix. Nothing is written, and nothing goes over a network.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

from hummingbird_runtime.device_findings import examine_devices
from hummingbird_runtime.errors import HummingbirdError
from hummingbird_runtime.finding import Finding

OLDEST = {"numpy": (1, 26), "onnxruntime": (1, 27)}
EXTRAS = {
    "video": (("av",), "writes .mp4"),
    "image": (("PIL",), "writes .gif and .webp"),
    "train": (("torch", "safetensors", "scipy"), "trains models"),
    "export": (("torch", "onnx", "onnxscript"), "writes bundles"),
}
MEMORY_NEEDED = 512 << 20
DISK_NEEDED = 64 << 20
_FLAGS = ("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "amx_int8", "asimd", "asimddp", "sve")


def examine() -> list[Finding]:
    """Look at everything; a problem keeps the runtime from working, a note is only missing."""
    return [
        _python(),
        _package("numpy"),
        _package("onnxruntime"),
        _processor(),
        _memory(),
        _disk("output folder", Path.cwd()),
        _disk("temporary folder", Path(tempfile.gettempdir())),
        *(_extra(name, *needs) for name, needs in EXTRAS.items()),
        _bundle(),
        *examine_devices(),
    ]


def _python() -> Finding:
    system = f"{platform.system()} {platform.machine()}"
    return Finding("python", "ok", f"{platform.python_version()} on {system}, {sys.executable}")


def _package(name: str) -> Finding:
    try:
        version = str(importlib.import_module(name).__version__)
    except Exception as error:  # a broken native library raises whatever it likes
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        return Finding(name, "problem", f"cannot be imported: {text}", f"pip install -U {name}")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < OLDEST[name]:
        wanted = ".".join(map(str, OLDEST[name]))
        return Finding(name, "problem", version, f"pip install -U '{name}>={wanted}'")
    return Finding(name, "ok", version)


def _processor() -> Finding:
    cores = f"{os.cpu_count()} cores"
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return Finding("processor", "ok", f"{cores}, {platform.processor() or platform.machine()}")
    listed = {
        word
        for line in text.splitlines()
        if line.partition(":")[0].strip() in ("flags", "Features")
        for word in line.partition(":")[2].split()
    }
    flags = [flag for flag in _FLAGS if flag in listed]
    if platform.machine() in ("x86_64", "AMD64") and "avx2" not in flags:
        return Finding("processor", "note", f"{cores}, no AVX2", "expect slow runs")
    return Finding("processor", "ok", f"{cores}, {' '.join(flags)}")


def _memory() -> Finding:
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii", errors="replace")
    except OSError:  # not Linux
        if not hasattr(os, "sysconf"):
            return Finding("memory", "note", "not readable on this system")
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return Finding("memory", "ok", f"{total >> 20} MiB in all")
    sizes = {
        line.partition(":")[0]: int(line.split()[1]) << 10
        for line in text.splitlines()
        if line.endswith("kB")
    }
    free, total = sizes.get("MemAvailable", 0), sizes.get("MemTotal", 0)
    found = f"{free >> 20} MiB free of {total >> 20} MiB"
    if free < MEMORY_NEEDED:
        return Finding("memory", "problem", found, "close other programs")
    return Finding("memory", "ok", found)


def _disk(name: str, folder: Path) -> Finding:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding(name, "problem", f"{folder}: {error.strerror}", "choose another folder")
    found = f"{folder}, {free >> 20} MiB free"
    if not os.access(folder, os.W_OK):
        return Finding(name, "problem", f"{folder}, not writable", "change to a folder of yours")
    if free < DISK_NEEDED:
        return Finding(name, "problem", found, "free some space")
    return Finding(name, "ok", found)


def _extra(name: str, modules: tuple[str, ...], purpose: str) -> Finding:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        fix = f"pip install 'hummingbird-edge[{name}]' ({purpose})"
        return Finding(f"extra {name}", "note", f"lacks {', '.join(missing)}", fix)
    return Finding(f"extra {name}", "ok", f"installed ({purpose})")


def _bundle() -> Finding:
    try:
        from hummingbird_runtime.bundle import Bundle

        manifest = Bundle.open().manifest
    except ImportError as error:
        return Finding("built-in bundle", "problem", f"not checked: {error}", "see above")
    except HummingbirdError as error:
        return Finding("built-in bundle", "problem", error.message, "reinstall hummingbird-edge")
    return Finding(
        "built-in bundle", "ok", f"{manifest.name}, {len(manifest.files)} files verified"
    )
