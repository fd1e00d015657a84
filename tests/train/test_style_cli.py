"""`hummingbird train style`: a folder of clips and a checkpoint folder to a style file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import micro_models
import numpy as np
import pytest

from hummingbird_runtime.errors import HummingbirdError, InputError
from hummingbird_runtime.safetensors import read_safetensors
from hummingbird_train.base import world_schedule
from hummingbird_train.checkpoint_folder import read_checkpoint_folder
from hummingbird_train.models.weights import save_model
from hummingbird_train.style_cli import main
from hummingbird_train.world.tokenizer_files import write_tokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("micro")
    unet, vae, text = micro_models.networks()
    save_model(folder / "unet.safetensors", unet, unet.config)
    save_model(folder / "vae.safetensors", vae, vae.config)
    save_model(folder / "text.safetensors", text, text.config)
    write_tokenizer(folder / "tokenizer")
    build = {
        "name": "micro",
        "unet": "unet.safetensors",
        "vae": "vae.safetensors",
        "text": "text.safetensors",
        "tokenizer": "tokenizer",
        "scheduler": world_schedule().to_json(),
        "facts": dataclasses.asdict(micro_models.facts(unet, vae)),
    }
    (folder / "build.json").write_text(json.dumps(build), "utf-8")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        np.save(folder / f"{i}.npy", rng.integers(0, 256, (6, 40, 32, 3), np.uint8))
        (folder / f"{i}.txt").write_text("a small red circle", "utf-8")
    return folder


def call(model: Path, data: Path, *more: str) -> int:
    out = data.parent / "ink.safetensors"
    return main(
        [str(data), "--model", str(model), "-o", str(out), "--run", str(data.parent / "run"),
         "--rank", "2", "--steps", "4", "--batch", "1", "-q", *more]
    )  # fmt: skip


@pytest.mark.slow
def test_a_style_file_a_sheet_and_a_repeat(
    model: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    out = data.parent / "ink.safetensors"
    assert (
        call(model, data, "--strength-preview", "--prior-weight", "0.5", "--prior-clips", "2") == 0
    )
    assert capsys.readouterr().out.split() == [str(out), str(out.with_suffix(".png"))]
    file = read_safetensors(out)
    assert file.metadata["name"] == "ink"
    assert any(np.abs(t).max() > 0 for n, t in file.tensors.items() if "lora_up" in n)
    with Image.open(out.with_suffix(".png")) as sheet:
        assert sheet.size == (6 * 32 * 4, 3 * 32 * 4)  # one prompt, three strengths, enlarged
        pixels = np.asarray(sheet)
    rows = np.split(pixels, 3)
    assert not np.array_equal(rows[0], rows[2])
    with pytest.raises(HummingbirdError) as caught:
        call(model, data)
    assert caught.value.code == "output.exists"
    with pytest.raises(InputError) as caught_input:
        call(model, data, "--force", "--seed", "5")
    assert caught_input.value.code == "style.run"
    assert "seed" in caught_input.value.message


@pytest.mark.slow
def test_a_pause_and_a_resume_give_the_same_file(model: Path, data: Path) -> None:
    assert call(model, data) == 0
    whole = read_safetensors(data.parent / "ink.safetensors").tensors
    (data.parent / "ink.safetensors").unlink()
    (data.parent / "run").rename(data.parent / "first")
    for _ in range(4):
        call(model, data, "--minutes", "1e-9")
    again = read_safetensors(data.parent / "ink.safetensors").tensors
    assert again.keys() == whole.keys()
    assert all(np.array_equal(again[name], tensor) for name, tensor in whole.items())


def test_images_train_without_clips_and_damage_is_refused_or_left_out(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 256, (48, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    (folder / "broken.png").write_bytes(b"no image")
    with pytest.raises(InputError) as caught:
        call(model, folder)
    assert caught.value.code == "data.corrupt"
    assert call(model, folder, "--skip-failures") == 0
    assert (tmp_path / "ink.safetensors").is_file()


@pytest.mark.parametrize("damage", ["missing", "json", "key"])
def test_a_folder_that_is_no_checkpoint_is_named(damage: str, tmp_path: Path) -> None:
    if damage == "json":
        (tmp_path / "build.json").write_text("{", "utf-8")
    if damage == "key":
        (tmp_path / "build.json").write_text('{"unet": 3}', "utf-8")
    with pytest.raises(InputError) as caught:
        read_checkpoint_folder(tmp_path)
    assert caught.value.code == "checkpoint.folder"
