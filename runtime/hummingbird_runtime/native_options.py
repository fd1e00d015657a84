"""``SessionOptions`` in ONNX Runtime's own terms. The onnxruntime module is handed in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from hummingbird_runtime.placement import RECORD
from hummingbird_runtime.plugins import add_providers
from hummingbird_runtime.session_options import CPU, SessionOptions

_SILENT = 4
_LEVELS = {
    "disabled": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "layout": "ORT_ENABLE_LAYOUT",
    "all": "ORT_ENABLE_ALL",
}


def native_options(ort: Any, options: SessionOptions) -> tuple[Any, list[Any]]:
    """An ``onnxruntime.SessionOptions`` with everything but disabled optimizers.

    Args:
        ort: the onnxruntime module.
        options: what is left at its default there is left at ONNX Runtime's default. Its
            providers are registered.

    Returns:
        The options, and what must live as long as a session opened with them.

    Raises:
        UsageError: ``provider.device_type``.
    """
    native, settings = ort.SessionOptions(), options.settings
    native.log_severity_level = _SILENT  # every failure is raised; nothing is worth a line
    if options.threads is not None:
        native.intra_op_num_threads = options.threads
    if settings.memory_reuse is not None:
        native.enable_mem_reuse = settings.memory_reuse
    if settings.memory_pattern is not None:
        native.enable_mem_pattern = settings.memory_pattern
    if settings.cpu_arena is not None:
        native.enable_cpu_mem_arena = settings.cpu_arena
    if settings.optimization is not None:
        level = getattr(ort.GraphOptimizationLevel, _LEVELS[settings.optimization])
        native.graph_optimization_level = level
    entries = {}
    if settings.prepacking is not None:
        entries["session.disable_prepacking"] = "0" if settings.prepacking else "1"
    if CPU not in options.providers:
        entries["session.disable_cpu_ep_fallback"] = "1"
    if options.providers != (CPU,):
        entries[RECORD] = "1"
    for key, value in {**entries, **options.config}.items():
        native.add_session_config_entry(key, value)
    add_providers(ort, native, options.providers, options.provider_options)
    arrays = [np.ascontiguousarray(array) for array in options.initializers.values()]
    values = [ort.OrtValue.ortvalue_from_numpy(array) for array in arrays]  # share the memory
    if values:
        # not add_initializer: rewritten weights (convolutions, folded constants) would ignore it
        native.add_external_initializers(list(options.initializers), values)
    return native, [arrays, values]


def open_native(ort: Any, path: Path, options: SessionOptions) -> tuple[Any, list[Any]]:
    """An ``onnxruntime.InferenceSession``, and what must live as long.

    Args:
        ort: the onnxruntime module.
        path: of the graph.
        options: as ``native_options``, as what is raised.
    """
    settings, kept = native_options(ort, options)
    native = ort.InferenceSession(
        os.fspath(path),
        settings,
        disabled_optimizers=list(options.settings.disabled_optimizers),
        enable_fallback=False,
    )
    return native, kept
