"""python-for-android recipe: the package hummingbird_runtime out of this project's wheel.

Takes HUMMINGBIRD_WHEEL (a file, as `make wheel` writes it). The training and export packages of
the wheel stay out of the app, and so does the onnxruntime package that the wheel asks for.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from pythonforandroid.recipe import Recipe

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import archives


class HummingbirdRuntimeRecipe(Recipe):
    """Unpacks the runtime and the built-in bundle into the app's site-packages."""

    version = "0"
    url = None
    depends = ("python3", "numpy", "libonnxruntime")
    name = "hummingbird_runtime"

    def should_build(self, arch: Any) -> bool:
        """Always: the wheel changes more often than its version."""
        return True

    def build_arch(self, arch: Any) -> None:
        """Check the wheel against its own record and unpack the one package."""
        site_packages = Path(self.ctx.get_python_install_dir(arch.arch))
        wheel = Path(os.environ["HUMMINGBIRD_WHEEL"])
        archives.package_from_wheel(wheel, self.name, site_packages)


recipe = HummingbirdRuntimeRecipe()
