"""Remake the constraint files: install each lane in a fresh environment and freeze what came.

Run by `make lock`. Local version labels (`+cpu`) are dropped: any build of that version fits.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

LANES = {"video": ".[video]", "dev": ".[dev]"}
HERE = Path(__file__).resolve().parent


def freeze(requirement: str) -> list[str]:
    """Sorted ``name==version`` lines of a fresh environment holding ``requirement``."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        bin_folder = "Scripts" if sys.platform == "win32" else "bin"
        python = str(Path(folder) / bin_folder / "python")
        pip = [python, "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--quiet", "--upgrade", "pip>=24"], check=True)
        if "dev" in requirement:  # the CPU build first: a plain range would bring CUDA libraries
            subprocess.run([*pip, "install", "--quiet", "torch==2.13.0"], check=True)
        subprocess.run([*pip, "install", "--quiet", requirement], check=True, cwd=HERE.parent)
        listed = subprocess.run(
            [*pip, "freeze", "--exclude", "hummingbird-edge"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
    pins = [line for line in listed.stdout.splitlines() if "==" in line]
    return sorted((re.sub(r"\+\S+", "", line) for line in pins), key=str.lower)


def main() -> None:
    """Write one file per lane."""
    for lane, requirement in LANES.items():
        lines = [f"# Versions tested together for `{requirement}`; remade by `make lock`."]
        (HERE / f"{lane}.txt").write_text("\n".join([*lines, *freeze(requirement), ""]))


if __name__ == "__main__":
    main()
