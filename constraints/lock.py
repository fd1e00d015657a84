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

LANES = {
    "video": (".[video]",),
    "dev": (".[dev]",),
    "devices": (".[webgpu,openvino,qnn]", "pytest>=8", "hypothesis>=6.100"),
    "interop": (".[interop]", "pytest>=8", "hypothesis>=6.100"),
}
HERE = Path(__file__).resolve().parent


def freeze(requirements: tuple[str, ...]) -> list[str]:
    """Sorted ``name==version`` lines of a fresh environment holding ``requirements``."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        bin_folder = "Scripts" if sys.platform == "win32" else "bin"
        python = str(Path(folder) / bin_folder / "python")
        pip = [python, "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--quiet", "--upgrade", "pip>=24"], check=True)
        if requirements in (LANES["dev"], LANES["interop"]):  # the CPU build: a range brings CUDA
            subprocess.run([*pip, "install", "--quiet", "torch==2.13.0"], check=True)
        subprocess.run([*pip, "install", "--quiet", *requirements], check=True, cwd=HERE.parent)
        listed = subprocess.run(
            [*pip, "freeze", "--exclude", "hummingbird-edge"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
    pins = [line for line in listed.stdout.splitlines() if "==" in line]
    return sorted((re.sub(r"\+\S+", "", line) for line in pins), key=str.lower)


def main() -> None:
    """Write one file per lane."""
    for lane, requirements in LANES.items():
        lines = [f"# Versions tested together for `{requirements[0]}`; remade by `make lock`."]
        (HERE / f"{lane}.txt").write_text("\n".join([*lines, *freeze(requirements), ""]))


if __name__ == "__main__":
    main()
