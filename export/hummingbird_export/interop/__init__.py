"""Bundles and their graphs in other people's software: optimum, diffusers and OpenVINO.

Names load on first use, each with only the packages that it needs; all of them come with the extra
``interop``. Without one of them the name is the typed error ``extra.missing``, in one line.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hummingbird_runtime.cli.verbs import missing_extra

_HOMES = {
    "BundleScheduler": "bundle_scheduler",
    "ORTTextToVideoPipeline": "optimum_pipeline",
    "OpenVinoGraph": "openvino_graph",
    "load_part": "diffusers_part",
    "openvino_model": "openvino_graph",
    "openvino_seconds": "openvino_pass",
}

__all__ = [
    "BundleScheduler",
    "ORTTextToVideoPipeline",
    "OpenVinoGraph",
    "load_part",
    "openvino_model",
    "openvino_seconds",
]

if TYPE_CHECKING:
    from hummingbird_export.interop.bundle_scheduler import BundleScheduler
    from hummingbird_export.interop.diffusers_part import load_part
    from hummingbird_export.interop.openvino_graph import OpenVinoGraph, openvino_model
    from hummingbird_export.interop.openvino_pass import openvino_seconds
    from hummingbird_export.interop.optimum_pipeline import ORTTextToVideoPipeline


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    except ModuleNotFoundError as error:
        # optimum is a namespace that several distributions fill: the whole name tells what is gone
        if error.name is None or error.name.startswith("hummingbird"):
            raise
        raise missing_extra(f"{__name__}.{name}", error.name, "interop") from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
