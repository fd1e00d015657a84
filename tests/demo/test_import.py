"""Importing bundles from folders and zips: good ones arrive whole, bad ones leave nothing."""

from __future__ import annotations

import os
import stat
import struct
import threading
import zipfile
from pathlib import Path

import pytest
import tiny_bundle

from hummingbird_demo import models
from hummingbird_demo.models import ModelStore
from hummingbird_runtime import (
    Bundle,
    Cancelled,
    CancelToken,
    HummingbirdError,
    InputError,
    IntegrityError,
    ResourceError,
    UsageError,
)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return tiny_bundle.write(tmp_path_factory.mktemp("source") / "tiny")


@pytest.fixture
def store(tmp_path, tiny_bundle_path) -> ModelStore:
    return ModelStore(tmp_path / "models", built_in=tiny_bundle_path)


def pack(source: Path, target: Path, *, top: str = "", method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(target, "w", method) as archive:
        for path in sorted(source.rglob("*")):
            if path.is_file():
                archive.write(path, top + path.relative_to(source).as_posix())
    return target


def add(store: ModelStore, source: Path):
    return store.add(source, lambda done, total: None, CancelToken())


def refused(store: ModelStore, source: Path, kind: type[HummingbirdError]) -> str:
    with pytest.raises(kind) as caught:
        add(store, source)
    left = [path.name for path in store.root.iterdir()]
    assert left == [], f"left behind: {left}"
    assert [model.key for model in store.models()[0]] == ["built-in"]
    return caught.value.code


@pytest.mark.parametrize("form", ["folder", "flat", "with a folder around", "stored"])
def test_a_bundle_arrives_whole_and_can_be_opened(store, source, tmp_path, form):
    given = source
    if form != "folder":
        top = "tiny/" if form == "with a folder around" else ""
        method = zipfile.ZIP_STORED if form == "stored" else zipfile.ZIP_DEFLATED
        given = pack(source, tmp_path / "tiny.zip", top=top, method=method)
    model = add(store, given)
    assert Bundle.open(store.folder(model.key)).manifest.name == "tiny"
    assert model.choices.sizes == ((16, 16), (32, 32), (48, 48), (64, 64))
    assert [found.key for found in store.models()[0]] == ["built-in", model.key]


def test_progress_reaches_the_whole(store, source, tmp_path):
    told = []
    zipped = pack(source, tmp_path / "tiny.zip")
    store.add(zipped, lambda done, total: told.append((done, total)), CancelToken())
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    sizes = {name: size.bytes for name, size in Bundle.open(source).manifest.files.items()}
    assert told[-1][0] == sum(sizes.values())


def test_what_a_packer_of_one_system_adds_is_left_out(store, source, tmp_path):
    zipped = pack(source, tmp_path / "tiny.zip")
    with zipfile.ZipFile(zipped, "a") as archive:
        archive.writestr("__MACOSX/._manifest.json", b"x")
        archive.writestr(".DS_Store", b"x")
    folder = store.folder(add(store, zipped).key)
    assert not (folder / "__MACOSX").exists()


def test_the_same_model_twice_is_refused(store, source):
    add(store, source)
    with pytest.raises(UsageError) as caught:
        add(store, source)
    assert caught.value.code == "import.exists"


def test_a_deleted_model_is_gone_and_the_built_in_one_stays(store, source):
    model = add(store, source)
    store.delete(model.key)
    assert list(store.root.iterdir()) == []
    with pytest.raises(UsageError) as caught:
        store.delete("built-in")
    assert caught.value.code == "import.built_in"


@pytest.mark.parametrize(
    "name",
    ["../evil", "/evil", "a/../../evil", "unet/..", "C:evil", "a\\b", "unet//x", "x\0y", ".hidden"],
)
def test_names_that_lead_outside_are_refused(store, source, tmp_path, name):
    zipped = pack(source, tmp_path / "tiny.zip")
    info = zipfile.ZipInfo("placeholder")
    info.filename = name  # ZipInfo itself would cut some of these
    with zipfile.ZipFile(zipped, "a") as archive:
        archive.writestr(info, b"x")
    code = refused(store, zipped, HummingbirdError)
    assert code in ("bundle.unsafe_path", "bundle.unlisted_file", "import.bad_zip")
    assert not (tmp_path / "evil").exists()


def test_a_link_inside_a_zip_is_refused(store, source, tmp_path):
    zipped = pack(source, tmp_path / "tiny.zip")
    info = zipfile.ZipInfo("unet/link.onnx")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(zipped, "a") as archive:
        archive.writestr(info, b"/etc/passwd")
    assert refused(store, zipped, IntegrityError) == "bundle.unsafe_path"


def test_a_link_inside_a_folder_is_refused(store, source, tmp_path):
    copy = tiny_bundle.write(tmp_path / "copy")
    (copy / "unet" / "model.onnx").unlink()
    (copy / "unet" / "model.onnx").symlink_to(source / "unet" / "model.onnx")
    assert refused(store, copy, IntegrityError) == "bundle.unsafe_path"


def repack(source: Path, target: Path, **changes: bytes | None) -> Path:
    """The bundle with files replaced, added, or left out (None)."""
    files = {p.relative_to(source).as_posix(): p.read_bytes() for p in source.rglob("*.*")
             if p.is_file()}  # fmt: skip
    files |= {"LICENSE": (source / "LICENSE").read_bytes()}
    files |= {name.replace("__", "/"): data for name, data in changes.items()}
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            if data is not None:
                archive.writestr(name, data)
    return target


def test_a_flipped_byte_a_missing_and_an_extra_file_are_told_apart(store, source, tmp_path):
    weights = bytearray((source / "unet" / "model.onnx").read_bytes())
    weights[len(weights) // 2] ^= 1
    target = tmp_path / "bad.zip"
    cases = {
        "bundle.hash_mismatch": {"unet__model.onnx": bytes(weights)},
        "bundle.size_mismatch": {"unet__model.onnx": bytes(weights) + b"x"},
        "bundle.missing_file": {"unet__model.onnx": None},
        "bundle.unlisted_file": {"unet__more.onnx": b"x"},
        "import.not_a_bundle": {"manifest.json": None},
    }
    for code, changes in cases.items():
        assert refused(store, repack(source, target, **changes), HummingbirdError) == code


def test_a_changed_manifest_is_refused_before_anything_is_unpacked(store, source, tmp_path):
    text = (source / "manifest.json").read_bytes().replace(b'"tiny"', b'"tinx"')
    zipped = repack(source, tmp_path / "bad.zip", **{"manifest.json": text})
    assert refused(store, zipped, IntegrityError) == "bundle.hash_mismatch"


def test_a_bomb_is_refused_by_its_ratio(store, source, tmp_path):
    zipped = repack(source, tmp_path / "bomb.zip", **{"unet__model.onnx": bytes(64 << 20)})
    assert refused(store, zipped, IntegrityError) == "import.bomb"


def test_an_entry_that_lies_about_its_size_cannot_write_more(store, source, tmp_path):
    """The directory says the listed size, the stream holds a thousand times as much."""
    real = (source / "unet" / "model.onnx").read_bytes()
    zipped = repack(source, tmp_path / "lie.zip", **{"unet__model.onnx": real + bytes(1 << 20)})
    data = bytearray(zipped.read_bytes())
    place = data.rfind(b"unet/model.onnx") - 46  # its record in the central directory
    assert data[place : place + 4] == b"PK\x01\x02"
    struct.pack_into("<I", data, place + 24, len(real))
    zipped.write_bytes(data)
    assert refused(store, zipped, HummingbirdError) in ("import.bad_zip", "bundle.hash_mismatch")


def test_a_directory_of_too_many_files_is_refused_before_it_is_parsed(store, tmp_path):
    target = tmp_path / "many.zip"
    with zipfile.ZipFile(target, "w") as archive:
        for i in range(2500):
            archive.writestr(f"f{i}", b"")
    assert refused(store, target, InputError) == "import.bad_zip"


def test_encrypted_and_unusual_methods_are_refused(store, source, tmp_path):
    zipped = pack(source, tmp_path / "odd.zip", method=zipfile.ZIP_BZIP2)
    assert refused(store, zipped, InputError) == "import.bad_zip"
    zipped = pack(source, tmp_path / "locked.zip")
    data = bytearray(zipped.read_bytes())
    place = data.find(b"PK\x01\x02")
    while place >= 0:
        data[place + 8] |= 1
        place = data.find(b"PK\x01\x02", place + 4)
    zipped.write_bytes(data)
    assert refused(store, zipped, InputError) == "import.bad_zip"


def test_a_name_twice_is_refused(store, source, tmp_path):
    zipped = pack(source, tmp_path / "twice.zip")
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(zipped, "a") as archive:
        archive.writestr("LICENSE", b"other")
    assert refused(store, zipped, InputError) == "import.bad_zip"


@pytest.mark.parametrize("data", [b"", b"PK", b"not a zip at all" * 100, b"PK\x05\x06" + bytes(18)])
def test_what_is_no_zip_is_refused(store, tmp_path, data):
    (tmp_path / "x.zip").write_bytes(data)
    assert refused(store, tmp_path / "x.zip", InputError) in (
        "import.bad_zip", "import.not_a_bundle",
    )  # fmt: skip


def test_every_torn_copy_is_refused(store, source, tmp_path):
    whole = pack(source, tmp_path / "tiny.zip").read_bytes()
    torn = tmp_path / "torn.zip"
    for cut in range(0, len(whole), max(len(whole) // 25, 1)):
        torn.write_bytes(whole[:cut])
        refused(store, torn, HummingbirdError)


def test_damage_anywhere_never_passes_as_the_bundle(store, source, tmp_path):
    whole = pack(source, tmp_path / "tiny.zip").read_bytes()
    damaged = tmp_path / "damaged.zip"
    original = {p.relative_to(source): p.read_bytes() for p in source.rglob("*.onnx")}
    for place in range(7, len(whole), max(len(whole) // 60, 1)):
        data = bytearray(whole)
        data[place] ^= 0x55
        damaged.write_bytes(data)
        try:
            model = add(store, damaged)
        except HummingbirdError:
            assert list(store.root.iterdir()) == []
            continue
        for name, content in original.items():  # such as a changed date: the files are the same
            assert (store.folder(model.key) / name).read_bytes() == content
        store.delete(model.key)


def test_nothing_there_and_a_plain_folder_are_no_bundles(store, tmp_path):
    (tmp_path / "empty").mkdir()
    assert refused(store, tmp_path / "empty", InputError) == "import.not_a_bundle"
    assert refused(store, tmp_path / "none.zip", InputError) == "import.not_a_bundle"


def test_a_full_disk_is_told_before_anything_is_written(store, source, monkeypatch):
    usage = type("Usage", (), {"free": models.SPARE})
    monkeypatch.setattr(models.shutil, "disk_usage", lambda _: usage)
    assert refused(store, source, ResourceError) == "import.no_space"


def test_cancelling_leaves_nothing(store, source, tmp_path):
    token = CancelToken()
    zipped = pack(source, tmp_path / "tiny.zip")
    with pytest.raises(Cancelled):
        store.add(zipped, lambda done, total: token.cancel(), token)
    assert list(store.root.iterdir()) == []


def test_what_a_killed_import_left_is_swept(store):
    (store.root / ".hummingbird-abc.partial").mkdir()
    (store.root / ".deleted-old").mkdir()
    store.sweep()
    assert list(store.root.iterdir()) == []


def test_a_damaged_model_is_listed_as_such_and_the_rest_goes_on(store, source):
    model = add(store, source)
    (store.root / model.key / "manifest.json").write_text("{")
    listed, damaged = store.models()
    assert [found.key for found in listed] == ["built-in"]
    assert [found.key for found in damaged] == [model.key]


def test_a_key_cannot_lead_out_of_the_store(store, tiny_bundle_path):
    for key in ("../models", "..", "", "a/b", "missing"):
        assert store.folder(key) == tiny_bundle_path


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs on this system")
def test_a_fifo_is_refused_and_does_not_hang(store, tmp_path):
    copy = tiny_bundle.write(tmp_path / "copy")
    (copy / "README.md").unlink()
    os.mkfifo(copy / "README.md")
    done: list[str] = []
    thread = threading.Thread(
        target=lambda: done.append(refused(store, copy, IntegrityError)), daemon=True
    )
    thread.start()
    thread.join(20)
    assert done == ["bundle.unsafe_path"]
