"""Archives of the Android build, damaged at random: taken whole and right, or refused by name."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import io
import struct
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
MEMBER = "jni/arm64-v8a/libonnxruntime.so"
LIBRARY = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 3, 183) + b"OrtGetApiBase" * 9
PACKAGE = {"p/__init__.py": b"print()\n" * 20, "p/data/model.onnx": bytes(range(256))}


@pytest.fixture(scope="module")
def archives():
    path = ROOT / "mobile_demo" / "android_build" / "archives.py"
    spec = importlib.util.spec_from_file_location("archives", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def packed(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def record(members: dict[str, bytes]) -> bytes:
    rows = []
    for name, data in members.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(data)}")
    return "\n".join(rows).encode()


AAR = packed({MEMBER: LIBRARY})
WHEEL = packed({**PACKAGE, "x-1.dist-info/RECORD": record(PACKAGE)})
damage = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(1, 255)), min_size=1, max_size=6)


def damaged(data: bytes, flips: list[tuple[int, int]], cut: int) -> bytes:
    changed = bytearray(data)
    for place, bits in flips:
        changed[place % len(changed)] ^= bits
    return bytes(changed[: len(changed) - cut])


@given(damage, st.integers(0, 40))
@example([(0, 255)], 0)
@settings(max_examples=300)
def test_a_damaged_aar_gives_the_library_or_a_refusal(archives, flips, cut) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder, "a.aar"), Path(folder, "out")
        out.mkdir()
        path.write_bytes(damaged(AAR, flips, cut))
        try:
            assert archives.library_from_aar(path, "arm64-v8a", out).read_bytes() == LIBRARY
        except archives.ArchiveRefused:
            assert list(out.iterdir()) == []


@given(damage, st.integers(0, 40))
@settings(max_examples=300)
def test_a_damaged_wheel_gives_the_package_or_a_refusal(archives, flips, cut) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder, "w.whl"), Path(folder, "out")
        path.write_bytes(damaged(WHEEL, flips, cut))
        try:
            archives.package_from_wheel(path, "p", out)
        except archives.ArchiveRefused:
            assert not out.exists()
        else:
            found = {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*.*")}
            # a name in the directory may be damaged away; what is written is as recorded
            assert found.items() <= PACKAGE.items()
            assert "p/__init__.py" in found
