"""Every container gives the same names and the same bits; damaged files are named as such."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from published_checkpoints import CONTAINERS, archive, pickled, published, published_classes
from safetensors.torch import save_file

from hummingbird_export.convert.container import open_checkpoint
from hummingbird_export.convert.keys import map_keys
from hummingbird_export.convert.pickle_reader import read_index
from hummingbird_runtime.errors import HummingbirdError, InputError, IntegrityError, UsageError

PICKLES = [name for name in CONTAINERS if name != "safetensors"]
STATE_DICTS = [name for name in PICKLES if "module" not in name]


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


@pytest.mark.parametrize("kind", CONTAINERS)
def test_every_container_gives_the_same_parts(tmp_path: Path, kind: str):
    tensors = published()
    path = tmp_path / "model.ckpt"
    CONTAINERS[kind](path, tensors)
    opened = open_checkpoint(path, modules=True)
    mapped, expected = map_keys(opened.tensors), map_keys(tensors)
    assert mapped.dropped == expected.dropped
    assert not mapped.unknown
    for part, names in expected.parts.items():
        assert list(mapped.parts[part]) == list(names) or kind == "safetensors"  # it sorts
        assert set(mapped.parts[part]) == set(names)
        for ours, theirs in names.items():
            stored = mapped.parts[part][ours]
            assert same_bits(opened.read(stored), tensors[theirs]), ours
            assert opened.tensors[stored].shape == tuple(tensors[theirs].shape)


@pytest.mark.parametrize("kind", STATE_DICTS)
def test_state_dicts_equal_what_torch_reads(tmp_path: Path, kind: str):
    path = tmp_path / "model.ckpt"
    CONTAINERS[kind](path, published())
    loaded = torch.load(path, weights_only=True, mmap=True)
    inner = loaded.get("state_dict") or loaded.get("module") or loaded
    opened = open_checkpoint(path)
    assert list(opened.tensors) == list(inner)
    assert all(same_bits(opened.read(name), tensor) for name, tensor in inner.items())


def test_a_module_has_the_names_of_its_state_dict(tmp_path: Path):
    with published_classes() as make:
        module = make(published())
        torch.save(module, tmp_path / "module.pt")
    opened = open_checkpoint(tmp_path / "module.pt", modules=True)
    assert list(opened.tensors) == list(module.state_dict())
    assert opened.container == "pickled module lvdm.models.ddpm3d.LatentDiffusion"


def test_number_types_and_views_are_read_as_they_are(tmp_path: Path):
    flat = torch.arange(24.0)  # DeepSpeed keeps views of one flat buffer
    tensors = {
        "half": torch.tensor([1.5, 65504.0], dtype=torch.float16),
        "brain": torch.tensor([1.5, 3e38], dtype=torch.bfloat16),
        "double": torch.tensor([np.pi], dtype=torch.float64),
        "long": torch.tensor([[1 << 40]]),
        "bool": torch.tensor([True, False]),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
        "row": flat[3:7],
        "column": flat.view(4, 6)[:, 2],
        "turned": flat.view(4, 6).t(),
        "turned part": flat.view(4, 6).t()[1:3, 1:],
    }
    torch.save(tensors, tmp_path / "types.pt")
    opened = open_checkpoint(tmp_path / "types.pt")
    for name, tensor in tensors.items():
        read = opened.read(name)
        assert read.dtype == tensor.dtype
        assert torch.equal(read, tensor), name


def test_safetensors_of_any_name_are_known_by_their_first_bytes(tmp_path: Path):
    save_file({"a": torch.ones(2)}, tmp_path / "weights.bin")
    assert open_checkpoint(tmp_path / "weights.bin").container == "safetensors"


@pytest.mark.parametrize("kind", ["module", "module in a dict"])
def test_a_pickled_module_needs_consent(tmp_path: Path, kind: str):
    path = tmp_path / "07B_merged_all.pt"
    CONTAINERS[kind](path, published())
    with pytest.raises(IntegrityError, match=r"lvdm\.") as caught:
        open_checkpoint(path)
    assert caught.value.code == "checkpoint.pickled_module"
    assert "--allow-pickled-module" in caught.value.hint


def test_classes_of_other_packages_must_be_named(tmp_path: Path):
    path = tmp_path / "model.pt"
    with published_classes("someones_model") as make:
        torch.save(make(published()), path)
    with pytest.raises(IntegrityError, match=r"someones_model\.models\.ddpm3d") as caught:
        open_checkpoint(path, modules=True)
    assert caught.value.code == "checkpoint.unsafe_pickle"
    assert "--stub" in caught.value.hint
    opened = open_checkpoint(path, modules=True, stubs=["someones_model"])
    assert set(opened.tensors) == set(published())


@pytest.mark.parametrize("package", ["os", "builtins", "posix", "torch.hub", "numpy", "a b", "_x"])
def test_no_one_can_add_python_or_torch_to_the_stubs(tmp_path: Path, package: str):
    with pytest.raises(UsageError) as caught:
        read_index(tmp_path / "model.pt", stubs=[package])
    assert caught.value.code == "convert.stub"


def test_missing_files_and_folders_are_named(tmp_path: Path):
    for path in (tmp_path / "absent.pt", tmp_path):
        with pytest.raises(InputError, match=path.name) as caught:
            open_checkpoint(path)
        assert caught.value.code == "checkpoint.missing"


@pytest.mark.parametrize("kind", ["safetensors", "plain", "module"])
def test_a_file_cut_anywhere_is_corrupt(tmp_path: Path, kind: str):
    whole = tmp_path / "whole"
    CONTAINERS[kind](whole, {n: t for n, t in published().items() if n.startswith("model.")})
    data = whole.read_bytes()
    cut = tmp_path / "cut"
    for part in (0, 1, 7, len(data) // 3, len(data) * 2 // 3, len(data) - 100, len(data) - 1):
        cut.write_bytes(data[:part])
        with pytest.raises(InputError) as caught:
            open_checkpoint(cut, modules=True)
        assert caught.value.code == "checkpoint.corrupt", part
        assert "\n" not in str(caught.value)


def test_a_flipped_byte_of_the_pickle_is_noticed(tmp_path: Path):
    path = tmp_path / "model.pt"
    torch.save({"a": torch.ones(3)}, path)
    data = bytearray(path.read_bytes())
    data[data.index(b"FloatStorage")] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="CRC"):
        open_checkpoint(path)


def test_storages_that_lie_are_refused(tmp_path: Path):
    path = tmp_path / "model.pt"
    torch.save({"a": torch.ones(3, 2)}, path)
    index = read_index(path)
    assert index.rows[0][0] == "a"
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(3, 2)}, buffer)
    for old, new, match in (
        (b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x009", "missing"),  # the storage's key
        (b"K\x06", b"K\x07", "bytes stored"),  # elements of the storage
        (b"K\x03K\x02\x86", b"K\x03K\x09\x86", "elements"),  # the shape
        (b"K\x02K\x01\x86", b"K\x09K\x01\x86", "beyond"),  # the strides
    ):
        with torch.serialization._open_zipfile_reader(io.BytesIO(buffer.getvalue())) as reader:
            pickle_bytes, storage = reader.get_record("data.pkl"), reader.get_record("data/0")
        assert pickle_bytes.count(old) == 1
        archive(path, pickle_bytes.replace(old, new), {"0": storage})
        with pytest.raises(HummingbirdError, match=match) as caught:
            open_checkpoint(path)
        assert caught.value.exit_code in (3, 4)


def test_archives_and_pickles_without_tensors_say_what_they_hold(tmp_path: Path):
    for value, match in (
        ({"epoch": 3, "lr": [1.0]}, "keys epoch, lr"),
        ([1, 2], "a list"),
        ("text", "a str"),
    ):
        with pytest.raises(InputError, match=match):
            open_checkpoint(archive(tmp_path / "x.pt", pickled(value)))


def test_other_formats_are_refused_without_being_read(tmp_path: Path):
    legacy = tmp_path / "legacy.pt"
    torch.save({"a": torch.ones(2)}, legacy, _use_new_zipfile_serialization=False)
    bare = tmp_path / "bare.pkl"
    bare.write_bytes(pickled({"a": 1}))
    tar = tmp_path / "old.tar"
    with tarfile.open(tar, "w", format=tarfile.USTAR_FORMAT) as file:
        file.add(legacy, "storages")
    for path in (legacy, bare, tar):
        with pytest.raises(IntegrityError) as caught:
            open_checkpoint(path)
        assert caught.value.code == "checkpoint.legacy_pickle"
    noise = tmp_path / "noise"
    noise.write_bytes(b"\xff\xd8\xff\xe0 a picture")
    with pytest.raises(InputError, match="ff d8") as caught:
        open_checkpoint(noise)
    assert caught.value.code == "checkpoint.corrupt"
