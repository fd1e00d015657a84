"""Doctor: what is wrong with a machine is a finding with a fix, never a crash."""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_bundle
from plugin_world import OPENVINO, WEBGPU

from hummingbird_runtime import bundle, device_findings, doctor, session
from hummingbird_runtime.auto_providers import Machine
from hummingbird_runtime.cli.native_output import native_output_on_stderr
from hummingbird_runtime.errors import ResourceError
from hummingbird_runtime.plugins import Device
from hummingbird_runtime.session_options import SessionOptions


def finding(name: str) -> doctor.Finding:
    return next(found for found in doctor.examine() if found.name == name)


@pytest.fixture
def no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system without /proc."""

    def missing(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)


def proc(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: text)


def test_other_systems_are_described_without_proc(
    no_proc: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert doctor._processor().status == "ok"
    assert "cores" in doctor._processor().found
    assert doctor._memory().status in ("ok", "note")
    monkeypatch.delattr(doctor.os, "sysconf", raising=False)
    assert doctor._memory().status == "note"


def test_an_old_processor_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.platform, "machine", lambda: "x86_64")
    proc(monkeypatch, "flags\t\t: fpu sse2\n")
    assert doctor._processor().status == "note"
    proc(monkeypatch, "flags\t\t: fpu avx2 fma\n")
    assert doctor._processor() == doctor.Finding(
        "processor", "ok", f"{doctor.os.cpu_count()} cores, avx2 fma"
    )


def test_little_memory_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    proc(monkeypatch, "MemTotal:  1024 kB\nMemAvailable:  512 kB\nHugePages: 0\n")
    assert doctor._memory().status == "problem"


def test_folders_that_cannot_be_written_are_problems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert doctor._disk("output folder", tmp_path / "no").status == "problem"
    assert doctor._disk("output folder", tmp_path).status == "ok"
    monkeypatch.setattr(doctor, "DISK_NEEDED", 1 << 62)
    assert doctor._disk("output folder", tmp_path).fix == "free some space"
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    assert "not writable" in doctor._disk("output folder", tmp_path).found


def test_a_missing_extra_is_a_note_with_the_pip_line() -> None:
    found = doctor._extra("video", ("no_such_module",), "writes .mp4")
    assert found.status == "note"
    assert found.fix == "pip install 'hummingbird-edge[video]' (writes .mp4)"


@pytest.mark.parametrize("error", [ImportError("bad library\nline two"), RuntimeError()])
def test_packages_that_break_on_import_are_problems(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(name: str) -> None:
        raise error

    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    found = doctor._package("onnxruntime")
    assert found.status == "problem"
    assert "\n" not in found.found


def test_an_old_package_is_a_problem_that_names_the_oldest_good_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = type("module", (), {"__version__": "1.2.3"})
    monkeypatch.setattr(doctor.importlib, "import_module", lambda name: old)
    assert ">=1.27" in doctor._package("onnxruntime").fix


def test_the_built_in_bundle_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "builtin_bundle", lambda: tmp_path / "bundle")
    assert finding("built-in bundle").status == "problem"
    tiny_bundle.write(tmp_path / "bundle")
    assert finding("built-in bundle").status == "ok"
    (tmp_path / "bundle" / "LICENSE").write_bytes(b"changed")
    assert finding("built-in bundle").fix == "reinstall hummingbird-edge"


HERE = Machine(
    ("CPUExecutionProvider", OPENVINO),
    (Device(OPENVINO, "cpu", "Xeon"), Device(OPENVINO, "gpu", "Arc")),
    {WEBGPU: f"{WEBGPU}: its library cannot be loaded: libvulkan.so.1"},
)


def test_every_device_is_told_with_what_it_would_run(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[SessionOptions] = []

    class Backend:
        def open(self, path: Path, options: SessionOptions) -> SimpleNamespace:
            opened.append(options)
            if options.provider_options[OPENVINO]["device_type"] == "gpu":
                raise ResourceError("provider.failed", "no compiler", hint="update the driver")
            where = {OPENVINO: {"Conv": 30}, "CPUExecutionProvider": {"Gather": 2}}
            return SimpleNamespace(placement=where, close=lambda: None)

    monkeypatch.setattr(session, "machine", lambda: HERE)
    monkeypatch.setattr(session, "OnnxRuntimeBackend", Backend)
    monkeypatch.setattr(device_findings, "is_installed", lambda provider: provider == OPENVINO)
    listed, cpu, gpu, webgpu, qnn, auto = device_findings.examine_devices()
    assert listed.found == f"CPUExecutionProvider, {OPENVINO}"
    assert cpu.found == "cpu, Xeon, runs 30 of 32 nodes of the built-in U-Net"
    assert (gpu.status, gpu.fix) == ("note", "update the driver")
    assert gpu.found == "gpu, Arc: no compiler"
    assert (webgpu.status, "libvulkan" in webgpu.found) == ("note", True)
    assert qnn.fix == "pip install onnxruntime-qnn (Qualcomm NPUs)"
    assert "Arc" in auto.found
    assert all(options.providers == (OPENVINO, "CPUExecutionProvider") for options in opened)


def test_a_missing_onnxruntime_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ImportError

    monkeypatch.setattr(session, "machine", missing)
    (found,) = device_findings.examine_devices()
    assert (found.status, found.fix) == ("problem", "pip install -U onnxruntime")


def test_what_drivers_print_does_not_reach_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    libc = ctypes.CDLL(None)
    print("before")
    with native_output_on_stderr():
        libc.puts(b"# a driver says hello")
    print("after")
    told = capfd.readouterr()
    assert told.out == "before\nafter\n"
    assert told.err == "# a driver says hello\n"
