"""The built-in bundle, damaged in a copy: every flipped bit and every file that is not as shipped.

The same for a tiny bundle, in more detail, is in tests/runtime/test_integrity.py.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from hummingbird_runtime.bundle import Bundle, builtin_bundle
from hummingbird_runtime.errors import HummingbirdError

pytestmark = pytest.mark.skipif(
    not (builtin_bundle() / "manifest.json").is_file(), reason="the built-in bundle is not here"
)
posix = pytest.mark.skipif(os.name == "nt", reason="POSIX links and FIFOs")


def copy_or_link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or a system without hard links
        shutil.copyfile(source, target)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Hard links where possible: replace a file, never write into it."""
    return Path(shutil.copytree(builtin_bundle(), tmp_path / "bundle", copy_function=copy_or_link))


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def code_of(root: Path) -> str:
    with pytest.raises(HummingbirdError) as caught:
        Bundle.open(root)
    assert "\n" not in str(caught.value)
    return caught.value.code


def check_flips(root: Path, folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    every = files(root)
    sizes = np.array([path.stat().st_size for path in every], float)
    more = rng.choice(len(every), max(count - len(every), 0), p=sizes / sizes.sum())
    for index in [*range(len(every)), *more]:
        path, bit = every[index], int(rng.integers(int(sizes[index]) * 8))
        data = bytearray(path.read_bytes())
        data[bit // 8] ^= 1 << bit % 8
        kept = folder / "kept"
        path.rename(kept)
        path.write_bytes(data)
        assert code_of(root) == "bundle.hash_mismatch", (path, bit)
        os.replace(kept, path)
    Bundle.open(root)


def test_a_flipped_bit_in_every_file_is_detected(bundle: Path, tmp_path: Path) -> None:
    check_flips(bundle, tmp_path, 30)


@pytest.mark.storm
def test_1000_flipped_bits_are_detected(bundle: Path, tmp_path: Path) -> None:
    check_flips(bundle, tmp_path, 1000)


def test_every_file_is_missed(bundle: Path, tmp_path: Path) -> None:
    for path in files(bundle):
        path.rename(tmp_path / "kept")
        assert code_of(bundle) == "bundle.missing_file", path
        (tmp_path / "kept").rename(path)
    Bundle.open(bundle)


@pytest.mark.parametrize("keep", [0, 1, 0.5, -1])
def test_every_truncated_file_is_refused(bundle: Path, tmp_path: Path, keep: float) -> None:
    for path in files(bundle):
        data = path.read_bytes()
        path.rename(tmp_path / "kept")
        path.write_bytes(data[: int(len(data) * keep) if keep == 0.5 else int(keep)])
        expected = "hash" if path.name in ("manifest.json", "manifest.sha256") else "size"
        assert code_of(bundle) == f"bundle.{expected}_mismatch", path
        os.replace(tmp_path / "kept", path)
    Bundle.open(bundle)


def test_every_renamed_file_is_refused(bundle: Path) -> None:
    for path in files(bundle):
        moved = path.with_name(path.name + "x")
        path.rename(moved)
        assert code_of(bundle) == "bundle.missing_file", path
        moved.rename(path)
    Bundle.open(bundle)


def test_a_file_too_many_is_refused_in_every_folder(bundle: Path) -> None:
    for folder in {path.parent for path in files(bundle)}:
        (folder / "more.bin").write_bytes(b"x")
        assert code_of(bundle) == "bundle.unlisted_file", folder
        (folder / "more.bin").unlink()
    Bundle.open(bundle)


@posix
@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_every_link_and_fifo_is_refused(bundle: Path, tmp_path: Path, kind: str) -> None:
    for path in files(bundle):
        path.rename(tmp_path / "kept")
        path.symlink_to(tmp_path / "kept") if kind == "link" else os.mkfifo(path)
        assert code_of(bundle) == "bundle.unsafe_path", path
        os.replace(tmp_path / "kept", path)
    Bundle.open(bundle)
