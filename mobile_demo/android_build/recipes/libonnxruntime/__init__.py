"""python-for-android recipe: ONNX Runtime's library out of the onnxruntime-android AAR.

Takes HUMMINGBIRD_AAR (a file) and HUMMINGBIRD_AAR_SHA256; downloads nothing.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from pythonforandroid.recipe import Recipe

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import archives


class OnnxRuntimeLibraryRecipe(Recipe):
    """Places libonnxruntime.so among the native libraries of the app."""

    version = "1.27.0"
    url = None
    depends = ("python3",)
    name = "libonnxruntime"

    def should_build(self, arch: Any) -> bool:
        """Whether the library is not there yet."""
        return not self.has_libs(arch, archives.LIBRARY)

    def build_arch(self, arch: Any) -> None:
        """Check the AAR and copy its library for ``arch``."""
        aar = Path(os.environ["HUMMINGBIRD_AAR"])
        archives.check_sha256(aar, os.environ["HUMMINGBIRD_AAR_SHA256"])
        folder = Path(self.get_build_dir(arch.arch))
        folder.mkdir(parents=True, exist_ok=True)
        self.install_libs(arch, str(archives.library_from_aar(aar, arch.arch, folder)))


recipe = OnnxRuntimeLibraryRecipe()
