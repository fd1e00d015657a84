"""An opened bundle: graphs by role, folders, and files that must not change afterwards."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_bundle

from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.errors import InputError, IntegrityError, ResourceError
from hummingbird_runtime.pipeline import TextToVideoPipeline


@pytest.fixture
def folder(tmp_path: Path, tiny_bundle_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle_path, tmp_path / "bundle"))


def test_a_role_the_bundle_lacks_lists_what_it_has(tiny_bundle_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        Bundle.open(tiny_bundle_path).path("vae_decoder_tiny")
    assert caught.value.code == "bundle.no_such_graph"
    assert "vae_decoder" in str(caught.value)


def test_a_file_replaced_after_verifying_is_refused_when_used(folder: Path) -> None:
    bundle = Bundle.open(folder)
    path = folder / "unet" / "model.onnx"
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)
    os.utime(path, ns=(1, 1))
    with pytest.raises(IntegrityError) as caught:
        bundle.path("unet")
    assert caught.value.code == "bundle.changed"
    assert bundle.path("vae_decoder").is_file()  # other folders are untouched


def test_external_data_beside_a_graph_is_watched_too(tmp_path: Path) -> None:
    files = {**tiny_bundle.files(), "unet/model.onnx_data": b"weights"}
    folder = tiny_bundle.write(tmp_path / "bundle", files)
    bundle = Bundle.open(folder)
    (folder / "unet" / "model.onnx_data").write_bytes(b"WEIGHTS!")
    with pytest.raises(IntegrityError):
        bundle.path("unet")


def test_a_file_removed_after_verifying_is_an_error_with_its_name(folder: Path) -> None:
    bundle = Bundle.open(folder)
    (folder / "tokenizer" / "vocab.json").unlink()
    with pytest.raises(ResourceError) as caught:
        bundle.folder("tokenizer")
    assert caught.value.code == "bundle.unreadable"
    assert "vocab.json" in str(caught.value)


@pytest.mark.skipif(
    os.name == "nt" or (hasattr(os, "geteuid") and os.geteuid() == 0),
    reason="the system lets us read",
)
def test_an_unreadable_file_is_a_resource_error(folder: Path) -> None:
    (folder / "LICENSE").chmod(0)
    with pytest.raises(ResourceError) as caught:
        Bundle.open(folder)
    assert caught.value.code == "bundle.unreadable"


def test_opening_leaves_the_folder_untouched(folder: Path) -> None:
    def state() -> dict[str, tuple[int, int]]:
        return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(folder.rglob("*"))}

    before = state()
    Bundle.open(folder)
    assert state() == before


def test_a_bundle_of_schema_version_1_still_draws() -> None:
    """The checked-in folder is what release 0.1.0 reads; later releases must read it too.

    It was made by ``tiny_bundle.write`` and is never made again.
    """
    folder = Path(__file__).parents[1] / "fixtures" / "bundle_v1"
    with TextToVideoPipeline.from_pretrained(folder, threads=1) as pipe:
        assert pipe.bundle.manifest.schema_version == 1
        video = pipe("a red ball moving left", seed=1)
    assert video.frames.shape == (6, 32, 32, 3)
    assert len(np.unique(video.frames)) > 16  # a picture, not one flat colour
