"""A conversion that meets a full disk or SIGKILL leaves the old folder or the new one, never half.

The failing step moves on until the conversion succeeds. The old folder, moved aside for the new
one, may be all that a kill between the two renames leaves; it is whole.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")

from clip_files import content
from disk_calls import watched
from published_checkpoints import CONTAINERS, published

from hummingbird_export.convert import conversion
from hummingbird_export.convert.container import open_checkpoint
from hummingbird_export.convert.conversion import Options, convert
from hummingbird_export.convert.doctor import diagnose
from hummingbird_export.convert.provenance import Terms
from hummingbird_runtime.errors import ResourceError

PARTIAL = ".hummingbird-"
CODES = {errno.ENOSPC: "output.disk_full", errno.EIO: "output.write_failed"}

Convert = Callable[[Path, int], None]


@pytest.fixture(scope="module")
def convert_variant(tmp_path_factory: pytest.TempPathFactory) -> Convert:
    """Writes variant 0 or 1 over what is there; a text tower is enough: every writer takes part."""
    folder = tmp_path_factory.mktemp("sources")
    tensors = {n: t for n, t in published().items() if n.startswith("cond_stage_model.")}
    diagnoses = []
    for variant in (0, 1):
        path = folder / f"{variant}.safetensors"
        CONTAINERS["safetensors"](path, {n: t + variant for n, t in tensors.items()})
        diagnoses.append(diagnose([open_checkpoint(path)]))
    options = Options(Terms("X", "Terms.\n"), "text", partial=True)

    def write(target: Path, variant: int) -> None:
        convert(target, diagnoses[variant], options, overwrite=True)

    return write


@pytest.fixture(autouse=True)
def short_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """CLIP's files take a third of a second; three small ones have as many steps."""

    def write(folder: Path) -> Path:
        folder.mkdir()
        for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
            with (folder / name).open("wb") as file:
                file.write(b"{}")
        return folder

    monkeypatch.setattr(conversion, "write_clip_tokenizer", write)


@pytest.fixture
def old_and_new(tmp_path: Path, convert_variant: Convert) -> tuple[dict, dict]:
    whole = []
    for variant in (0, 1):
        convert_variant(tmp_path / f"reference{variant}", variant)
        whole.append(content(tmp_path / f"reference{variant}"))
    assert whole[0] != whole[1]
    return whole[0], whole[1]


def settle(folder: Path, target: Path, old: dict) -> dict | None:
    """What lies under the name, with a folder that was moved aside put back."""
    found = content(target)
    if found is None:
        (aside,) = folder.glob(f"{PARTIAL}*.old")
        assert content(aside) == old
        aside.rename(target)
        found = old
    return found


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize("number", CODES, ids=["ENOSPC", "EIO"])
def test_every_write_may_fail(
    tmp_path: Path,
    convert_variant: Convert,
    old_and_new: tuple[dict, dict],
    number: int,
    lasting: bool,
) -> None:
    old, new = old_and_new
    folder = tmp_path / "here"
    folder.mkdir()
    target = folder / "converted"
    convert_variant(target, 0)
    for failing in range(1, 200):

        def act(n: int, name: str, failing: int = failing) -> None:
            if n == failing or (lasting and n > failing and name != "open to read"):
                raise OSError(number, os.strerror(number))

        error = None
        with watched(folder, act) as calls:
            try:
                convert_variant(target, 1)
            except ResourceError as caught:
                error = caught
        if failing > len(calls):
            break
        assert error is not None, calls
        assert error.code == CODES[number], (calls, error)
        found = settle(folder, target, old)
        if found == new:  # only the sync of the parent folder has failed
            assert "rename" in calls[: failing - 1]
            convert_variant(target, 0)
            found = old
        assert found == old, calls
        assert list(folder.iterdir()) == [target], calls
    assert content(target) == new
    assert failing > 30, calls


@pytest.mark.skipif(os.name == "nt", reason="limits on the file size are POSIX")
def test_a_file_that_may_not_grow_is_never_published(
    tmp_path: Path, convert_variant: Convert, old_and_new: tuple[dict, dict]
) -> None:
    import resource

    old, new = old_and_new
    folder = tmp_path / "here"
    folder.mkdir()
    target = folder / "converted"
    convert_variant(target, 0)
    size = len(new["text.safetensors"])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (0, 1, size // 3, size - 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with pytest.raises(ResourceError) as caught:
                convert_variant(target, 1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert caught.value.code.startswith("output.")
        assert content(target) == old
        assert list(folder.iterdir()) == [target]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_kill_before_every_step_leaves_old_or_new(
    tmp_path: Path, convert_variant: Convert, old_and_new: tuple[dict, dict]
) -> None:
    old, new = old_and_new
    folder = tmp_path / "here"
    folder.mkdir()
    target = folder / "converted"
    convert_variant(target, 0)
    seen = []
    for number in range(1, 200):

        def act(n: int, name: str, number: int = number) -> None:
            if n == number:
                os.kill(os.getpid(), signal.SIGKILL)

        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException), watched(folder, act):
                convert_variant(target, 1)
                os._exit(0)
            os._exit(1)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != -signal.SIGKILL:
            break
        found = settle(folder, target, old)
        assert found in (old, new), number
        seen.append(found == new)
        if found == new:
            convert_variant(target, 0)
        for left in folder.glob(f"{PARTIAL}*"):
            shutil.rmtree(left)
        assert list(folder.iterdir()) == [target]
    assert content(target) == new
    assert number > 30
    assert seen == sorted(seen)  # old up to one step, new from it on
