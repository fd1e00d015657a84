"""The app as it lies on a phone: runtime, NumPy and one shared library, and nothing else.

The runtime is unpacked from a wheel by the recipe's own code, the library lies in a folder of its
own where only the system's linker finds it, and Python runs without its site packages (-S -I).
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from hummingbird_runtime import TextToVideoPipeline
from hummingbird_runtime.capi import find_library

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "mobile_demo"
RUNTIME = ROOT / "runtime"
PROMPT = "a red ball moving left"
ABSENT = ("torch", "av", "onnxruntime", "onnx", "kivy", "PIL", "hummingbird_export")

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the layout is Android's, the linker must be ELF's"
)

START = """
import sys
sys.path[:0] = {paths!r}
import numpy
sys.platform = "android"  # NumPy is built for its platform, the runtime asks
import importlib.util
present = [name for name in {absent!r} if importlib.util.find_spec(name)]
assert not present, present
"""


def runtime_wheel(path: Path) -> Path:
    """What `make wheel` puts into a wheel of the runtime, and a neighbour that must stay out."""
    files = [p for p in (RUNTIME / "hummingbird_runtime").rglob("*") if p.is_file()]
    rows = []
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hummingbird_export/__init__.py", b"")
        for file in files:
            if "__pycache__" in file.parts:
                continue
            name, data = file.relative_to(RUNTIME).as_posix(), file.read_bytes()
            archive.writestr(name, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=")
            rows.append(f"{name},sha256={digest.decode()},{len(data)}")
        archive.writestr("x-1.dist-info/RECORD", "\n".join(rows))
    return path


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = importlib.util.spec_from_file_location("archives", DEMO / "android_build/archives.py")
    archives = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(archives)
    root = tmp_path_factory.mktemp("phone")
    site_packages, app, native = root / "site-packages", root / "app", root / "lib"
    for folder in (site_packages, app, native):
        folder.mkdir()
    wheel = runtime_wheel(root / "hummingbird_edge-0-py3-none-any.whl")
    archives.package_from_wheel(wheel, "hummingbird_runtime", site_packages)
    packages = Path(np.__file__).parents[1]
    for name in ("numpy", "numpy.libs"):
        if (packages / name).is_dir():
            (site_packages / name).symlink_to(packages / name)
    shutil.copy(DEMO / "service.py", app)
    shutil.copy(find_library(), native / "libonnxruntime.so")
    return root


def run(phone: Path, code: str, *arguments: str) -> str:
    paths = [str(phone / "app"), str(phone / "site-packages")]
    done = subprocess.run(
        [sys.executable, "-S", "-I", "-c", START.format(paths=paths, absent=ABSENT) + code,
         *arguments],
        capture_output=True, text=True, timeout=300, cwd=phone,
        env={"LD_LIBRARY_PATH": str(phone / "lib"), "OMP_NUM_THREADS": "1",
             **{k: v for k, v in os.environ.items() if k == "PATH"}},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr == ""
    return done.stdout


def job(folder: Path, **changes: object) -> Path:
    folder.mkdir(exist_ok=True)
    values = {"prompt": PROMPT, "seed": 7, "output": "clip.npz", "threads": 1, **changes}
    (folder / "job.json").write_text(json.dumps(values))
    return folder


SERVE = "import service, pathlib\nservice.run_job(pathlib.Path(sys.argv[1]))\n"


def state_after(phone: Path, folder: Path, code: str = SERVE) -> dict:
    run(phone, code, str(folder))
    return json.loads((folder / "state.json").read_text())


def test_the_library_is_found_by_the_linker_and_nothing_heavy_is_loaded(phone: Path) -> None:
    out = run(
        phone,
        "from hummingbird_runtime.capi import CapiBackend, find_library\n"
        "print(find_library(), CapiBackend().version)\n"
        f"print(sorted(set({ABSENT!r}) & set(sys.modules)))\n",
    )
    name, version, loaded = out.split()
    assert name == "libonnxruntime.so"
    assert version.count(".") == 2
    assert loaded == "[]"


def test_the_service_draws_the_clip_that_the_desktop_draws(
    phone: Path, tiny_bundle_path: Path, tmp_path: Path
) -> None:
    bundle = shutil.copytree(tiny_bundle_path, tmp_path / "bundle")
    folder = job(tmp_path / "job", bundle=str(bundle))
    state = state_after(phone, folder)
    assert (state["state"], state["output"]) == ("done", "clip.npz")
    with TextToVideoPipeline.from_pretrained(bundle, threads=1) as pipe:
        expected = pipe(PROMPT, seed=7).frames
    np.testing.assert_array_equal(np.load(folder / "clip.npz")["frames"], expected)
    assert sorted(path.name for path in folder.iterdir()) == ["clip.npz", "job.json", "state.json"]


@pytest.mark.slow
def test_the_built_in_bundle_draws_on_the_phone(phone: Path, tmp_path: Path) -> None:
    folder = job(tmp_path / "job", num_frames=2, output="clip.png")
    assert state_after(phone, folder)["state"] == "done"
    assert (folder / "clip.png").read_bytes().startswith(b"\x89PNG")


def test_a_job_that_makes_no_sense_says_so(phone: Path, tmp_path: Path) -> None:
    for changes in (
        {"output": "../clip.npz"}, {"seed": "7"}, {"seed": True}, {"surprise": 1}, {"prompt": None}
    ):  # fmt: skip
        state = state_after(phone, job(tmp_path / "job", **changes))
        assert (state["state"], state["code"]) == ("failed", "app.job"), changes
    (tmp_path / "job" / "job.json").write_text("{")
    assert state_after(phone, tmp_path / "job")["code"] == "app.job"
    assert sorted(path.name for path in (tmp_path / "job").iterdir()) == ["job.json", "state.json"]


def test_a_failure_of_the_runtime_reaches_the_app(
    phone: Path, tiny_bundle_path: Path, tmp_path: Path
) -> None:
    folder = job(tmp_path / "job", bundle=str(tiny_bundle_path), num_frames=10_000)
    state = state_after(phone, folder)
    assert (state["state"], state["code"]) == ("failed", "request.frames")
    assert state["hint"]


def test_a_cancel_file_stops_the_service(
    phone: Path, tiny_bundle_path: Path, tmp_path: Path
) -> None:
    folder = job(tmp_path / "job", bundle=str(tiny_bundle_path), num_inference_steps=50)
    (folder / "cancel").touch()
    slowly = (
        "import service, pathlib, time\n"
        "service.POLL_SECONDS = 0.01\n"
        "write = service._write\n"
        "service._write = lambda *a, **k: (time.sleep(0.05), write(*a, **k))\n"
        "service.run_job(pathlib.Path(sys.argv[1]))\n"
    )
    assert state_after(phone, folder, slowly) == {"state": "cancelled"}
    assert not (folder / "clip.npz").exists()


def test_a_service_that_was_killed_goes_on_where_it_was(
    phone: Path, tiny_bundle_path: Path, tmp_path: Path
) -> None:
    bundle = {"bundle": str(tiny_bundle_path), "num_inference_steps": 8}
    whole = job(tmp_path / "whole", **bundle)
    state_after(phone, whole)
    folder = job(tmp_path / "job", **bundle)
    dying = (
        "import service, pathlib, os\n"
        "write = service._write\n"
        "def note(path, **values):\n"
        "    write(path, **values)\n"
        "    if values.get('step') == 5:\n"
        "        os._exit(0)\n"
        "service._write = note\n"
        "service.run_job(pathlib.Path(sys.argv[1]))\n"
    )
    assert state_after(phone, folder, dying)["step"] == 5
    assert (folder / "run.npz").exists()
    counted = (
        "import service, pathlib\n"
        "steps, write = [], service._write\n"
        "service._write = lambda p, **v: (steps.append(v.get('step')), write(p, **v))\n"
        "service.run_job(pathlib.Path(sys.argv[1]))\n"
        "print(steps)\n"
    )
    assert run(phone, counted, str(folder)).strip() == "[0, 6, 7, 8, None]"
    assert (folder / "clip.npz").read_bytes() == (whole / "clip.npz").read_bytes()
    assert not (folder / "run.npz").exists()
