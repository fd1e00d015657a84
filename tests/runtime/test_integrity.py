"""A damaged or doctored bundle is refused before a session exists."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import tiny_bundle

from hummingbird_runtime.bundle import Bundle, builtin_bundle
from hummingbird_runtime.bundle_files import digest_file
from hummingbird_runtime.errors import HummingbirdError, InputError, IntegrityError
from hummingbird_runtime.integrity import file_entries, seal
from hummingbird_runtime.manifest import Manifest
from hummingbird_runtime.operators import ALLOWED_OPERATORS, check_operators

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX file kinds")


@pytest.fixture
def bundle(tmp_path: Path, tiny_bundle_path: Path) -> Path:
    """A bundle that the test may damage."""
    return Path(shutil.copytree(tiny_bundle_path, tmp_path / "bundle"))


def refusal(path: Path) -> HummingbirdError:
    with pytest.raises(HummingbirdError) as caught:
        Bundle.open(path)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return caught.value


def reseal(root: Path, **changes) -> None:
    """Make the manifest agree with the folder again, as an attacker would."""
    manifest = Manifest.from_json((root / "manifest.json").read_bytes())
    changes.setdefault("files", file_entries(root))
    seal(root, dataclasses.replace(manifest, **changes))


def test_an_untouched_bundle_opens(tiny_bundle_path: Path) -> None:
    bundle = Bundle.open(tiny_bundle_path)
    assert bundle.manifest.name == "tiny"
    assert bundle.scheduler.sampler == "lcm"
    assert bundle.path("unet") == tiny_bundle_path / "unet" / "model.onnx"
    assert (bundle.folder("tokenizer") / "vocab.json").is_file()


def flips(root: Path, count: int, seed: int = 0):
    """(file, bit) pairs, every file at least once, then spread by size."""
    rng = np.random.default_rng(seed)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    sizes = np.array([path.stat().st_size for path in files], float)
    picks = [*range(len(files)), *rng.choice(len(files), count - len(files), p=sizes / sizes.sum())]
    return [(files[i], int(rng.integers(int(sizes[i]) * 8))) for i in picks]


def check_flips(root: Path, count: int) -> None:
    for path, bit in flips(root, count):
        original = path.read_bytes()
        data = bytearray(original)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        error = refusal(root)
        assert error.code == "bundle.hash_mismatch", (path, bit, error)
        assert error.exit_code == 4
        path.write_bytes(original)
    Bundle.open(root)


def test_200_bit_flips_are_all_detected(bundle: Path) -> None:
    check_flips(bundle, 200)


@pytest.mark.storm
def test_1000_bit_flips_are_all_detected(bundle: Path) -> None:
    check_flips(bundle, 1000)


@pytest.mark.parametrize("keep", [0, 1, 0.5, -1])
def test_a_truncated_file_is_named_with_both_sizes(bundle: Path, keep: float) -> None:
    path = bundle / "unet" / "model.onnx"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if keep == 0.5 else int(keep)])
    error = refusal(bundle)
    assert (error.code, error.exit_code) == ("bundle.size_mismatch", 4)
    assert "unet/model.onnx" in str(error)
    assert str(len(data)) in str(error)


def test_every_missing_file_is_listed_at_once(bundle: Path) -> None:
    shutil.rmtree(bundle / "unet")
    (bundle / "tokenizer" / "merges.txt").unlink()
    error = refusal(bundle)
    assert (error.code, error.exit_code) == ("bundle.missing_file", 3)
    assert "unet/model.onnx" in str(error)
    assert "tokenizer/merges.txt" in str(error)


def test_no_bundle_at_all(tmp_path: Path, bundle: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    error = refusal(empty)
    assert error.code == "bundle.missing_file"
    assert "manifest.json, manifest.sha256" in str(error)
    for nothing in (tmp_path / "no", bundle / "LICENSE"):
        error = refusal(nothing)
        assert (error.code, error.exit_code) == ("bundle.not_found", 3)
    with pytest.raises(InputError) as caught:
        Bundle.open("a\0b")
    assert caught.value.code == "bundle.not_found"
    assert builtin_bundle().name == "shapes-v1"


def test_unlisted_files_are_refused(bundle: Path) -> None:
    (bundle / "unet" / "extra.bin").write_bytes(b"x")
    error = refusal(bundle)
    assert (error.code, error.exit_code) == ("bundle.unlisted_file", 4)
    assert "unet/extra.bin" in str(error)


@pytest.mark.parametrize(
    "name", ["with space", "new\nline", ".DS_Store", "é", "-rf", "a.", "model.onnx~"]
)
def test_files_with_odd_names_are_refused(bundle: Path, name: str) -> None:
    (bundle / name).write_bytes(b"x")
    assert refusal(bundle).code == "bundle.unsafe_path"


@posix
def test_names_that_are_no_text_are_refused(bundle: Path) -> None:
    with open(os.path.join(os.fsencode(bundle), b"\xff\xfe"), "wb"):
        pass
    assert refusal(bundle).code == "bundle.unsafe_path"


def test_names_that_differ_by_case_are_refused(bundle: Path) -> None:
    (bundle / "license").write_bytes(b"x")
    if (bundle / "LICENSE").read_bytes() == b"x":
        pytest.skip("this file system ignores case")
    assert refusal(bundle).code == "bundle.unsafe_path"


@posix
@pytest.mark.parametrize("where", ["outside", "inside", "folder", "manifest", "dangling"])
def test_links_are_refused(bundle: Path, tmp_path: Path, where: str) -> None:
    target = {
        "outside": bundle / "LICENSE",
        "inside": bundle / "LICENSE",
        "folder": bundle / "unet",
        "manifest": bundle / "manifest.json",
        "dangling": bundle / "LICENSE",
    }[where]
    moved = (bundle if where == "inside" else tmp_path) / "moved"
    shutil.move(target, moved)
    target.symlink_to(moved)
    if where == "dangling":
        moved.unlink()
    error = refusal(bundle)
    assert (error.code, error.exit_code) == ("bundle.unsafe_path", 4)


@posix
def test_a_link_to_the_whole_bundle_is_fine(bundle: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(bundle)
    assert Bundle.open(link).root == bundle.resolve()


@posix
def test_a_hard_link_is_judged_by_its_content(bundle: Path, tmp_path: Path) -> None:
    """Installers hard-link wheels from their cache, so a link count above one is no fault."""
    path = bundle / "LICENSE"
    same = tmp_path / "same"
    same.write_bytes(path.read_bytes())
    path.unlink()
    os.link(same, path)
    Bundle.open(bundle)
    other = tmp_path / "other"
    other.write_bytes(bytes(reversed(path.read_bytes())))
    path.unlink()
    os.link(other, path)
    assert refusal(bundle).code == "bundle.hash_mismatch"


@posix
@pytest.mark.parametrize("kind", ["fifo", "socket"])
def test_fifos_and_sockets_are_refused_without_waiting(
    bundle: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bundle / "LICENSE").unlink()
    if kind == "fifo":
        os.mkfifo(bundle / "LICENSE")
    else:
        monkeypatch.chdir(bundle)  # socket names are short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("LICENSE")
    assert refusal(bundle).code == "bundle.unsafe_path"


def test_a_manifest_that_escapes_is_refused(bundle: Path) -> None:
    for name in ("../secret", "/etc/passwd", "a/../../x"):
        document = json.loads((bundle / "manifest.json").read_bytes())
        document["files"][name] = {"sha256": "0" * 64, "bytes": 1}
        text = json.dumps(document).encode()
        (bundle / "manifest.json").write_bytes(text)
        digest = hashlib.sha256(text).hexdigest() + "\n"
        (bundle / "manifest.sha256").write_text(digest, newline="")
        assert refusal(bundle).code == "bundle.unsafe_path"
        tiny_bundle.write(bundle)


def test_a_wrong_or_odd_digest_is_refused(bundle: Path) -> None:
    good = (bundle / "manifest.sha256").read_bytes()
    for bad in (b"", good[:-1], good.upper(), b"0" * 64 + b"\n", good + b"\n", b"x" * 4096):
        (bundle / "manifest.sha256").write_bytes(bad)
        error = refusal(bundle)
        assert (error.code, error.exit_code) == ("bundle.hash_mismatch", 4)


def test_a_huge_manifest_is_not_read_whole(bundle: Path) -> None:
    with (bundle / "manifest.json").open("r+b") as file:
        file.truncate(1 << 32)  # sparse where the file system can
    error = refusal(bundle)
    assert error.code == "bundle.manifest_invalid"


def test_equal_size_and_other_content_is_a_hash_mismatch(bundle: Path) -> None:
    path = bundle / "README.md"
    path.write_bytes(b"#" * path.stat().st_size)
    assert refusal(bundle).code == "bundle.hash_mismatch"


def test_operators_are_allowed_by_the_runtime_and_never_by_the_bundle(bundle: Path) -> None:
    graphs = tiny_bundle.graphs()
    for op in ("ai.onnx:Loop", "ai.onnx:If", "evil:MatMul", "ai.onnx:RandomNormal"):
        bad = dataclasses.replace(graphs["unet"], ops=("ai.onnx:Add", op))
        reseal(bundle, graphs={**graphs, "unet": bad})
        error = refusal(bundle)
        assert (error.code, error.exit_code) == ("bundle.op_not_allowed", 4)
        assert op in str(error)


@pytest.mark.parametrize("opset", [99, 16, 0, -1])
def test_an_unsupported_opset_names_the_range(bundle: Path, opset: int) -> None:
    graphs = tiny_bundle.graphs()
    reseal(bundle, graphs={**graphs, "unet": dataclasses.replace(graphs["unet"], opset=opset)})
    error = refusal(bundle)
    assert (error.code, error.exit_code) == ("bundle.unsupported_opset", 3)
    assert str(opset) in str(error)


def test_no_operator_can_loop_or_draw_random_numbers() -> None:
    names = {op.partition(":")[2] for op in ALLOWED_OPERATORS}
    assert not names & {"Loop", "If", "Scan", "RandomNormal", "RandomUniform", "Sin", "Cos"}
    check_operators(ALLOWED_OPERATORS, opset=18, graph="x")
    with pytest.raises(IntegrityError):
        check_operators(["ai.onnx:"], opset=18, graph="x")


@pytest.mark.parametrize("settings", ["[]", "null", '{"sampler": "magic"}', '{"nonsense": 1}', "{"])
def test_a_sampler_configuration_that_makes_no_sense_is_refused(
    bundle: Path, settings: str
) -> None:
    (bundle / "scheduler" / "scheduler_config.json").write_text(settings)
    reseal(bundle)
    assert refusal(bundle).exit_code == 3


def test_a_read_only_bundle_opens(bundle: Path) -> None:
    for path in bundle.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        Bundle.open(bundle)
    finally:
        for path in bundle.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)


def test_a_relative_path_is_as_good_as_an_absolute_one(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bundle.parent)
    assert file_entries(Path("bundle")) == file_entries(bundle)
    assert Bundle.open("bundle").root == bundle.resolve()


@pytest.mark.parametrize("call", ["scandir", "open"])
def test_what_the_system_will_not_let_us_read_is_a_resource_error(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, call, refuse)
    error = refusal(bundle)
    assert (error.code, error.exit_code) == ("bundle.unreadable", 5)


@posix
def test_a_file_that_becomes_a_fifo_after_listing_is_refused_without_waiting(
    bundle: Path,
) -> None:
    os.mkfifo(bundle / "pipe")
    with pytest.raises(IntegrityError) as caught:
        digest_file(bundle / "pipe")
    assert caught.value.code == "bundle.unsafe_path"


def test_a_file_that_grows_after_listing_is_not_read_to_its_end(bundle: Path) -> None:
    path = bundle / "LICENSE"
    path.write_bytes(b"x" * (3 << 20))
    entry, _ = digest_file(path, limit=10)
    assert 10 < entry.bytes < 3 << 20


def test_more_files_than_a_bundle_may_have_are_refused_early(bundle: Path) -> None:
    for i in range(2050):
        (bundle / "tokenizer" / f"f{i}").touch()
    assert refusal(bundle).code == "bundle.unsafe_path"
