"""A write that fails at its first, second, third .. step leaves the old output and nothing else.

After SQLite's anomaly testing: the failing step moves on until the write succeeds.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clip_files import LIGHT, WRITERS, content
from disk_calls import watched

from hummingbird_runtime.errors import ResourceError

CODES = {errno.ENOSPC: "output.disk_full", errno.EIO: "output.write_failed"}
posix = pytest.mark.skipif(os.name == "nt", reason="limits on the file size are POSIX")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize("number", CODES, ids=["ENOSPC", "EIO"])
@pytest.mark.parametrize("kind", WRITERS)
def test_every_step_of_a_write_may_fail(
    tmp_path: Path, kind: str, number: int, lasting: bool
) -> None:
    writer = WRITERS[kind]
    pytest.importorskip(writer.needs)
    target = tmp_path / writer.name
    writer.write(target, 1)
    new = content(target)
    writer.write(target, 0)
    old = content(target)
    assert old != new

    for failing in range(1, 200):

        def act(n: int, name: str, failing: int = failing) -> None:
            if n == failing or (lasting and n > failing and name != "open to read"):
                raise OSError(number, os.strerror(number))

        error = None
        with watched(tmp_path, act) as calls:
            try:
                writer.write(target, 1)
            except ResourceError as caught:
                error = caught
        if failing > len(calls):
            break
        if error is None:  # zipfile opens its file in another way when the first one fails
            assert content(target) == new
            writer.write(target, 0)
        else:
            assert error.code == CODES[number], (calls, error)
            assert "\n" not in str(error)
        renames = calls[: failing - 1].count("replace") + calls[: failing - 1].count("rename")
        if renames and kind == "folder" and lasting and content(target) is None:
            # the old one was moved aside and no rename works any more: it is whole, and there
            (aside,) = tmp_path.iterdir()
            assert content(aside) == old
            aside.rename(target)
        elif renames and content(target) == new:  # only the sync of the folder has failed
            writer.write(target, 0)
        assert content(target) == old, calls
        assert names(tmp_path) == [writer.name], calls
    assert error is None
    assert content(target) == new
    # made, opened and synced; moved; the folder opened and synced
    assert failing > (3 if os.name == "nt" else 5), calls


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file of this process may grow beyond ``size`` bytes: EFBIG, also for C libraries."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def check_limits(folder: Path, kind: str, count: int) -> None:
    writer = WRITERS[kind]
    pytest.importorskip(writer.needs)
    target = folder / writer.name
    writer.write(target, 1)
    new, size = content(target), max(path.stat().st_size for path in folder.rglob("*.*"))
    writer.write(target, 0)
    old = content(target)
    for limit in sorted({0, 1, size - 1, *(size * i // count for i in range(count))}):
        with file_size_limit(limit), pytest.raises(ResourceError) as caught:
            writer.write(target, 1)
        assert caught.value.code.startswith("output."), (limit, caught.value)
        assert content(target) == old, limit
        assert names(folder) == [writer.name], limit
    with file_size_limit(size):
        writer.write(target, 1)
    assert content(target) == new


@posix
@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_that_may_not_grow_is_not_published(tmp_path: Path, kind: str) -> None:
    check_limits(tmp_path, kind, 8)


@posix
@pytest.mark.storm
@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_cut_at_200_places_is_never_published(tmp_path: Path, kind: str) -> None:
    check_limits(tmp_path, kind, 200)


FULL_DISK = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from clip_files import WRITERS, content, installed
from hummingbird_runtime.errors import HummingbirdError
folder = Path(sys.argv[1])
results = {}
for kind, writer in WRITERS.items():
    if not installed(kind):
        continue
    target = folder / writer.name
    try:
        writer.write(target, 1)
        results[kind] = ["ok", 0]
        writer.write(target, 2)  # two do not fit beside each other
    except HummingbirdError as error:
        old = content(target)
        writer_left = sorted(path.name for path in folder.iterdir())
        results[kind] = [error.code, sum(map(len, (old or {}).values())), writer_left]
    except BaseException as error:
        results[kind] = [f"{type(error).__name__}: {error}"]
    import shutil
    shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
print(json.dumps(results))
"""


@pytest.mark.storm
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
@pytest.mark.parametrize("pages", [1, 2, 3, 5, 8, 12, 20, 30])
def test_a_really_full_disk_is_named_by_every_writer(tmp_path: Path, pages: int) -> None:
    script = tmp_path / "script.py"
    script.write_text(FULL_DISK)
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f'mount -t tmpfs -o size={4 * pages}k tmpfs "$1" && shift && exec "$@"'
    support = Path(__file__).parents[1] / "support"
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    command = ["unshare", "--mount", *user, "sh", "-c", mount, "sh", disk]
    done = subprocess.run(
        [*command, sys.executable, script, disk, support],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    if not done.stdout:
        pytest.skip(f"no private mount here: {done.stderr.strip()[-80:]}")
    for kind, (code, size, *left) in json.loads(done.stdout).items():
        assert code in ("ok", "output.disk_full"), (kind, code)
        if left:
            assert left[0] == ([WRITERS[kind].name] if size else []), (kind, left)


def test_the_light_writers_are_all_here() -> None:
    from hummingbird_runtime.writers import SUFFIXES

    assert {*SUFFIXES} | {".folder"} == {f".{kind}" for kind in LIGHT}
