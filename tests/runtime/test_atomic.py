"""Outputs appear whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from hummingbird_runtime.atomic import atomic_file, atomic_folder, discard_partials
from hummingbird_runtime.errors import HummingbirdError, InputError, ResourceError, UsageError
from hummingbird_runtime.output import check_target, output_error

ROOT_WRITES_ANYWHERE = hasattr(os, "geteuid") and os.geteuid() == 0


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_only_when_the_block_ends_well(tmp_path: Path) -> None:
    target = tmp_path / "clip.mp4"
    with atomic_file(target) as partial:
        assert partial.suffix == ".mp4"
        assert partial.parent == tmp_path
        partial.write_bytes(b"new")
        assert not target.exists()
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == ["clip.mp4"]


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), InputError("a.b", "c")])
def test_a_failed_block_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: BaseException
) -> None:
    target = tmp_path / "clip.mp4"
    target.write_bytes(b"old")

    def write() -> None:
        with atomic_file(target, overwrite=True) as partial:
            partial.write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["clip.mp4"]


def test_an_existing_file_needs_overwrite(tmp_path: Path) -> None:
    target = tmp_path / "clip.mp4"
    target.write_bytes(b"old")
    with pytest.raises(UsageError) as caught, atomic_file(target):
        pytest.fail("the block must not run")
    assert caught.value.code == "output.exists"
    with atomic_file(target, overwrite=True) as partial:
        partial.write_bytes(b"new")
    assert target.read_bytes() == b"new"


def test_a_file_that_appeared_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "clip.mp4"

    def write() -> None:
        with atomic_file(target) as partial:
            partial.write_bytes(b"mine")
            target.write_bytes(b"theirs")

    with pytest.raises(UsageError) as caught:
        write()
    assert caught.value.code == "output.exists"
    assert target.read_bytes() == b"theirs"
    assert names(tmp_path) == ["clip.mp4"]


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "output.disk_full"),
        (errno.EDQUOT, "output.disk_full"),
        (errno.EACCES, "output.permission"),
        (errno.EROFS, "output.permission"),
        (errno.ENAMETOOLONG, "output.name_too_long"),
        (errno.ENOTDIR, "output.folder_missing"),
        (errno.EIO, "output.write_failed"),
    ],
)
def test_errors_of_the_system_are_typed(tmp_path: Path, number: int, code: str) -> None:
    target = tmp_path / "clip.mp4"
    with pytest.raises(ResourceError) as caught, atomic_file(target):
        raise OSError(number, os.strerror(number))
    assert caught.value.code == code
    assert names(tmp_path) == []


def test_the_nth_failing_system_call_never_leaves_a_torn_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails the first sync or rename, then the second, and so on until the write succeeds."""
    target = tmp_path / "clip.mp4"
    real_fsync, real_replace = os.fsync, os.replace
    for failing in range(1, 20):
        target.write_bytes(b"old")
        calls = 0

        def fail_or(real, failing=failing):
            def call(*arguments):
                nonlocal calls
                calls += 1
                if calls == failing:
                    raise OSError(errno.EIO, "injected")
                return real(*arguments)

            return call

        monkeypatch.setattr(os, "fsync", fail_or(real_fsync))
        monkeypatch.setattr(os, "replace", fail_or(real_replace))
        code = ""
        try:
            with atomic_file(target, overwrite=True) as partial:
                partial.write_bytes(b"new")
        except ResourceError as error:
            code = error.code
        if not code:
            break
        assert code == "output.write_failed"
        assert target.read_bytes() in (b"old", b"new")
        assert names(tmp_path) == ["clip.mp4"]
    assert target.read_bytes() == b"new"
    assert failing > 2  # at least one sync and the rename were made to fail


def test_refusals_before_any_work(tmp_path: Path) -> None:
    expected = {
        tmp_path: (UsageError, "output.is_folder"),
        tmp_path / "no" / "clip.mp4": (ResourceError, "output.folder_missing"),
        tmp_path / ("x" * 300): (ResourceError, "output.name_too_long"),
        tmp_path / "a\0b.mp4": (UsageError, "output.bad_name"),
    }
    for path, (kind, code) in expected.items():
        with pytest.raises(kind) as caught:
            check_target(path)
        assert caught.value.code == code
    assert not (tmp_path / "no").exists()
    assert check_target(tmp_path / "clip.mp4") == (tmp_path / "clip.mp4").resolve()


@pytest.mark.skipif(ROOT_WRITES_ANYWHERE or os.name == "nt", reason="the system lets us write")
def test_a_folder_without_write_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ResourceError) as caught:
            check_target(tmp_path / "clip.mp4")
    finally:
        tmp_path.chmod(0o700)
    assert caught.value.code == "output.permission"


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_a_link_as_output_is_followed(tmp_path: Path) -> None:
    real, link = tmp_path / "real.mp4", tmp_path / "link.mp4"
    real.write_bytes(b"old")
    link.symlink_to(real)
    with atomic_file(link, overwrite=True) as partial:
        partial.write_bytes(b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    with atomic_folder(target) as partial:
        (partial / "sub").mkdir()
        (partial / "sub" / "a").write_bytes(b"1")
        assert not target.exists()
    assert (target / "sub" / "a").read_bytes() == b"1"
    assert names(tmp_path) == ["bundle"]


def test_an_empty_folder_counts_as_free_and_a_full_one_does_not(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    target.mkdir()
    with atomic_folder(target) as partial:
        (partial / "a").write_bytes(b"1")
    with pytest.raises(UsageError) as caught, atomic_folder(target):
        pytest.fail("the block must not run")
    assert caught.value.code == "output.exists"
    with atomic_folder(target, overwrite=True) as partial:
        (partial / "b").write_bytes(b"2")
    assert names(target) == ["b"]
    assert names(tmp_path) == ["bundle"]


def test_a_failed_folder_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "bundle"
    with atomic_folder(target) as partial:
        (partial / "a").write_bytes(b"1")

    def write() -> None:
        with atomic_folder(target, overwrite=True) as partial:
            (partial / "b").write_bytes(b"2")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert names(target) == ["a"]

    real, calls = os.rename, []

    def fail_second(source, destination):
        calls.append(source)
        if len(calls) == 2:
            raise OSError(errno.EIO, "injected")
        real(source, destination)

    monkeypatch.setattr(os, "rename", fail_second)
    with pytest.raises(ResourceError), atomic_folder(target, overwrite=True) as partial:
        (partial / "b").write_bytes(b"2")
    assert names(target) == ["a"]
    assert names(tmp_path) == ["bundle"]


def test_a_folder_that_appeared_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "bundle"

    def write() -> None:
        with atomic_folder(target) as partial:
            (partial / "mine").touch()
            target.mkdir()
            (target / "theirs").touch()

    with pytest.raises(UsageError):
        write()
    assert names(target) == ["theirs"]
    assert names(tmp_path) == ["bundle"]


def test_a_file_system_that_cannot_sync_is_no_reason_to_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(_: int) -> None:
        raise OSError(errno.EINVAL, "not here")

    monkeypatch.setattr(os, "fsync", cannot)
    with atomic_file(tmp_path / "a.bin") as partial:
        partial.write_bytes(b"x")
    assert names(tmp_path) == ["a.bin"]


def test_a_process_that_must_exit_can_discard_its_partial_files(tmp_path: Path) -> None:
    manager = atomic_file(tmp_path / "clip.mp4")
    partial = manager.__enter__()
    assert partial.exists()
    discard_partials()
    assert names(tmp_path) == []
    with pytest.raises(HummingbirdError):
        manager.__exit__(None, None, None)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_really_full_device_says_so(tmp_path: Path) -> None:
    with pytest.raises(ResourceError) as caught, atomic_file(tmp_path / "a.bin"):
        Path("/dev/full").write_bytes(b"x")
    assert caught.value.code == "output.disk_full"


def test_messages_are_one_line_and_name_the_file(tmp_path: Path) -> None:
    error = output_error(OSError(errno.ENOSPC, "x"), tmp_path / "clip.mp4")
    assert "clip.mp4" in str(error)
    assert "\n" not in str(error)
    assert "bytes free" in str(error)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are POSIX")
def test_a_pipe_is_never_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    with pytest.raises(UsageError) as caught, atomic_file(pipe, overwrite=True):
        pass
    assert caught.value.code == "output.not_a_file"
    assert pipe.is_fifo()
