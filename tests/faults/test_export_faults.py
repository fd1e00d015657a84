"""Exports that are cut off: a full disk, a kill, bad weights leave the old bundle or the new one.

The networks are small and traced once, so that an export takes about a second; it is otherwise the
real one. Default tests try some steps, the long lane all of them.
"""

from __future__ import annotations

import copy
import errno
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from clip_files import content
from disk_calls import watched

torch = pytest.importorskip("torch")
pytest.importorskip("onnx_ir")
quick_export = pytest.importorskip("quick_export")

from export_forker import ExportForker  # noqa: E402

from hummingbird_export import compile as compiling  # noqa: E402
from hummingbird_export.graph_process import GraphProcess  # noqa: E402
from hummingbird_export.precision import round_to_half  # noqa: E402
from hummingbird_runtime.bundle import Bundle  # noqa: E402
from hummingbird_runtime.errors import ExecutionError, InputError, ResourceError  # noqa: E402
from hummingbird_train.world.tokenizer_files import write_tokenizer  # noqa: E402

PARTIAL = ".hummingbird-"
posix = pytest.mark.skipif(os.name == "nt", reason="POSIX")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def old_bundle(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path) -> Path:
    """A bundle named ``old``."""
    out = tmp_path_factory.mktemp("old") / "bundle"
    return quick_export.export(out, tokenizer, target="cpu", precision="fp32", name="old")


@pytest.fixture
def target(tmp_path: Path, old_bundle: Path) -> Path:
    """A copy of the old bundle, alone in its folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    return shutil.copytree(old_bundle, folder / "bundle")


def replace_it(target: Path, tokenizer: Path, **options) -> Path:
    options = {"target": "cpu", "precision": "fp32", "name": "new", "overwrite": True, **options}
    return quick_export.export(target, tokenizer, **options)


def assert_old(target: Path, old: dict[str, bytes] | None) -> None:
    assert content(target) == old
    assert [path.name for path in target.parent.iterdir()] == [target.name]


# ---- a full disk ----


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory, old_bundle: Path, tokenizer: Path) -> list[str]:
    """The watched calls of an export that replaces the old bundle."""
    target = shutil.copytree(old_bundle, tmp_path_factory.mktemp("recorded") / "bundle")
    with watched(target.parent, lambda n, name: None) as names:
        replace_it(target, tokenizer)
    assert Bundle.open(target).manifest.name == "new"
    assert {"mkdir", "open", "write", "fsync", "rename"} <= set(names)
    return names


def check_full_disk(
    target: Path, tokenizer: Path, calls: list[str], steps: list[int], *, lasting: bool
) -> None:
    """Let single steps of an export fail, and with ``lasting`` all that write after them."""
    old = content(target)
    aside, moved = [n for n, name in enumerate(calls, start=1) if name == "rename"][-2:]
    for number in steps:

        def act(n: int, name: str, number: int = number) -> None:
            if n == number or (lasting and n > number and name != "open to read"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with pytest.raises(ResourceError) as caught, watched(target.parent, act) as made:
            replace_it(target, tokenizer)
        assert made[:number] == calls[:number]
        assert caught.value.code == "output.disk_full", (number, made[-1], caught.value)
        if number > moved:  # only a sync has failed: the new one is in place
            assert Bundle.open(target).manifest.name == "new"
            shutil.rmtree(target)
            write(target, old)
        elif lasting and number > aside:
            # the old one was moved aside and no rename works any more: it is whole, and there
            (beside,) = target.parent.iterdir()
            assert content(beside) == old
            beside.rename(target)
        assert_old(target, old)


def write(target: Path, files: dict[str, bytes]) -> None:
    for path, data in files.items():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_bytes(data)


def writing(calls: list[str]) -> list[int]:
    """Numbers of the calls that need space."""
    return [n for n, name in enumerate(calls, start=1) if name not in ("open to read", "fsync")]


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
def test_a_full_disk_while_exporting_leaves_the_old_bundle(
    target: Path, tokenizer: Path, calls: list[str], lasting: bool
):
    steps = writing(calls)
    chosen = [steps[0], steps[len(steps) // 8]] if lasting else [steps[4], steps[-1]]
    check_full_disk(target, tokenizer, calls, chosen, lasting=lasting)


@pytest.mark.storm
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
def test_a_full_disk_at_any_step_leaves_the_old_bundle(
    target: Path, tokenizer: Path, calls: list[str], lasting: bool
):
    every = [n for n, name in enumerate(calls, start=1) if name != "open to read"]
    check_full_disk(target, tokenizer, calls, every, lasting=lasting)


def check_file_limits(target: Path, tokenizer: Path, sizes: list[int], **options) -> None:
    """Files that may not grow: also those that native code writes."""
    import resource

    old, before = content(target), resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in sizes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            with pytest.raises((ResourceError, ExecutionError)) as caught:
                replace_it(target, tokenizer, **options)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert caught.value.code in ("output.write_failed", "output.disk_full"), (size, caught)
        assert_old(target, old)


@posix
def test_a_file_that_may_not_grow_leaves_the_old_bundle(
    target: Path, tokenizer: Path, old_bundle: Path
):
    largest = (old_bundle / "unet" / "model.onnx_data").stat().st_size
    check_file_limits(target, tokenizer, [largest - 1])


@posix
@pytest.mark.storm
@pytest.mark.parametrize("precision", ["fp32", "int8", "fp16-storage"])
def test_files_cut_at_30_places_leave_the_old_bundle(target: Path, tokenizer: Path, precision: str):
    sizes = [round(1.42**i) for i in range(30)]
    check_file_limits(target, tokenizer, sizes, precision=precision)


# ---- stops and errors at any stage ----


def check_stages(target: Path, tokenizer: Path, stages: list[int] | None, **options) -> None:
    """Whatever is raised between two stages leaves nothing behind."""
    old, told = content(target), []
    for stage in stages if stages is not None else range(1, 100):
        told.clear()

        def note(text: str, stage: int = stage) -> None:
            told.append(text)
            if len(told) == stage:
                raise KeyboardInterrupt

        try:
            replace_it(target, tokenizer, note=note, **options)
        except KeyboardInterrupt:
            assert_old(target, old)
        else:
            assert stages is None
            assert len(told) == stage - 1 >= 8
            return
    assert stages is not None


def test_a_stop_leaves_nothing_behind(target: Path, tokenizer: Path):
    check_stages(target, tokenizer, [2, 8], precision="int8")


@pytest.mark.storm
@pytest.mark.parametrize("precision", ["fp32", "int8", "mixed"])
def test_a_stop_at_any_stage_leaves_nothing_behind(target: Path, tokenizer: Path, precision: str):
    check_stages(target, tokenizer, None, precision=precision)


def test_a_process_of_a_large_graph_that_dies_leaves_nothing_behind(
    target: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setattr(compiling, "EXTERNAL_THRESHOLD", 0)
    run = GraphProcess.__call__

    def dying(self: GraphProcess, feeds):
        self._child.kill()
        return run(self, feeds)

    monkeypatch.setattr(GraphProcess, "__call__", dying)
    old = content(target)
    with pytest.raises(ExecutionError, match="its process ended with status") as caught:
        replace_it(target, tokenizer)
    assert caught.value.code == "export.verify"
    assert_old(target, old)
    assert list(scratch.iterdir()) == []


# ---- weights ----


def spoilt(role: str, value: float):
    """The networks with one weight of one of them replaced."""
    parts = [copy.deepcopy(network) for network in quick_export.networks()]
    index = ("unet", "vae_decoder", "text_encoder").index(role)
    network = parts[index].decoder if role == "vae_decoder" else parts[index]
    weight = max(network.parameters(), key=lambda parameter: parameter.numel())
    with torch.no_grad():
        weight.view(-1)[: weight.numel() // 2] = value
    return tuple(parts)


@pytest.mark.parametrize(
    ("role", "value", "precision"),
    [
        ("text_encoder", float("nan"), "int8"),
        ("unet", float("nan"), "fp32"),
        ("unet", float("inf"), "int8"),
        ("unet", 1e38, "fp32"),
    ],
)
def test_weights_that_are_not_finite_are_a_typed_error(
    role: str, value: float, precision: str, target: Path, tokenizer: Path
):
    old = content(target)
    unet, vae, _ = quick_export.networks()
    facts = quick_export.micro_models.facts(unet, vae)
    with pytest.raises(ExecutionError, match=rf"graph {role} .*not finite") as caught:
        replace_it(target, tokenizer, parts=spoilt(role, value), precision=precision, facts=facts)
    assert caught.value.code == "export.verify"
    assert_old(target, old)


def test_facts_of_an_autoencoder_that_is_not_finite_are_a_typed_error():
    unet, vae, _ = spoilt("vae_decoder", float("nan"))
    with pytest.raises((InputError, ExecutionError)) as caught:
        quick_export.micro_models.facts(unet, vae)
    assert "finite" in str(caught.value)


@pytest.mark.parametrize("value", [7e4, -1e6, float("inf"), float("nan")])
def test_weights_beyond_float16_are_refused_by_name(value: float, target: Path, tokenizer: Path):
    old = content(target)
    parts = spoilt("text_encoder", value)
    with pytest.raises(InputError, match=r"weight .*: got magnitude") as caught:
        replace_it(target, tokenizer, parts=parts, precision="fp16-storage")
    assert caught.value.code == "checkpoint.half_range"
    assert_old(target, old)
    with pytest.raises(InputError):
        round_to_half(parts[2])


# ---- kills ----


@pytest.fixture(scope="module")
def forker(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path) -> Iterator[ExportForker]:
    started = ExportForker(tmp_path_factory.mktemp("forker"), tokenizer)
    yield started
    started.close()


def settle(target: Path, old: dict[str, bytes] | None) -> str:
    """Which whole bundle is there after a kill; what lies beside it is named as a leftover."""
    beside = [path for path in target.parent.iterdir() if path != target]
    assert all(path.name.startswith(PARTIAL) for path in beside), beside
    if not target.exists():  # killed between the two moves
        (aside,) = (path for path in beside if path.name.endswith(".old"))
        aside.rename(target)
        beside.remove(aside)
    for path in beside:
        shutil.rmtree(path)
    if content(target) == old:
        return "old"
    name = Bundle.open(target).manifest.name  # every hash is checked
    assert name in ("new", "newer")
    return name


def check_kills(target: Path, forker: ExportForker, shares: list[float]) -> None:
    old = content(target)
    count = forker.steps(target.parent)
    assert settle(target, old) == "new"
    for share in shares:
        shutil.rmtree(target)
        shutil.copytree(forker.old, target)
        number = max(1, min(count, round(share * count)))
        assert forker.killed_at_step(target.parent, number)
        assert settle(target, content(forker.old)) in ("old", "new")


@posix
@pytest.mark.slow
def test_a_kill_before_a_step_leaves_the_old_bundle_or_the_new_one(
    target: Path, forker: ExportForker
):
    shutil.copytree(target, forker.old, dirs_exist_ok=True)
    check_kills(target, forker, [0.5, 0.985])


@posix
@pytest.mark.storm
def test_a_kill_before_every_step_leaves_the_old_bundle_or_the_new_one(
    target: Path, forker: ExportForker
):
    shutil.copytree(target, forker.old, dirs_exist_ok=True)
    check_kills(target, forker, [i / 100 for i in range(101)])


@posix
@pytest.mark.storm
def test_20_kills_at_random_times_leave_a_whole_bundle(target: Path, forker: ExportForker):
    rng = random.Random(20)
    seen = set()
    for _ in range(20):
        old = content(target)
        forker.killed_after(target.parent, rng.uniform(0.0, 4.0))
        seen.add(settle(target, old))
    assert "old" in seen
