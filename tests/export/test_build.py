"""Plans, recipes and checkpoints on disk; one whole build through the command line."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path

import micro_models
import numpy as np
import pytest
import torch

from hummingbird_export import build as building
from hummingbird_export import cli
from hummingbird_export.build import BuildPlan, build, check_precision, read_recipe
from hummingbird_export.facts import FixedSizes
from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.errors import InputError, UsageError
from hummingbird_runtime.pipeline import TextToVideoPipeline
from hummingbird_train.models.tiny_decoder import TinyDecoder, TinyDecoderConfig
from hummingbird_train.models.weights import save_model

RECIPE = """
name = "from-recipe"
precision = "fp16-storage"
unet = "unet.safetensors"
vae = "vae.safetensors"
text = "text.safetensors"
tokenizer = "tokenizer"
licence = {name = "CC0-1.0", file = "TERMS"}

[scheduler]
sampler = "ddim"
prediction_type = "v_prediction"
rescale_betas_zero_snr = true
timestep_spacing = "trailing"

[provenance]
recipe = "shapes.toml"

[facts]
frames = {trained = 4, default = 4, allowed = [1, 26]}
height = {trained = 32, default = 32, allowed = [16, 64]}
width = {trained = 32, default = 32, allowed = [16, 64]}
fps_condition = {default = 8, trained = [8], allowed = [1, 60]}
playback_fps = 8
guidance = {kind = "cfg", default = 3.0, trained = [1.0, 5.0], allowed = [0.0, 15.0]}
num_inference_steps = {default = 2, trained = [2], allowed = [1, 50]}
vocabulary_examples = ["a small red circle"]
grammar = "noise"
decode_chunk = 4
"""


@pytest.fixture
def recipe(tmp_path: Path, tokenizer_folder: Path) -> Path:
    """A folder with checkpoints and everything else a recipe names."""
    folder = tmp_path / "sources"
    folder.mkdir()
    for name, model in zip(
        ("unet", "vae", "text"), micro_models.networks(guided=False), strict=True
    ):
        save_model(folder / f"{name}.safetensors", model, model.config, dtype=torch.float16)
    (folder / "TERMS").write_text("do what you like")
    (folder / "tokenizer").symlink_to(tokenizer_folder, target_is_directory=True)
    path = folder / "recipe.toml"
    path.write_text(RECIPE)
    return path


def test_a_recipe_becomes_a_bundle_that_draws(recipe: Path, tmp_path: Path, capsys):
    out = tmp_path / "bundle"
    assert cli.main(["build", str(recipe), "-o", str(out), "--name", "from-flag"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{out}\n"
    bundle = Bundle.open(out)
    manifest = bundle.manifest
    assert manifest.name == "from-flag"  # flags win over the recipe
    assert manifest.licence.name == "CC0-1.0"
    assert (out / "LICENSE").read_text() == "do what you like\n"
    assert bundle.scheduler.rescale_betas_zero_snr
    assert manifest.provenance["recipe"] == "shapes.toml"
    digest = hashlib.sha256((recipe.parent / "unet.safetensors").read_bytes()).hexdigest()
    assert manifest.provenance["weights_sha256"]["unet"] == digest
    # float16 checkpoints lose nothing in float16 storage
    assert all(graph.parity["weights_relative_l2"] == 0 for graph in manifest.graphs.values())
    assert manifest.model.vae_scale_factor == 8
    assert manifest.model.height.multiple_of == 16
    assert np.isfinite(manifest.model.latent_rgb).all()
    with TextToVideoPipeline.from_pretrained(out) as pipe:
        assert pipe("a small red circle", seed=1).frames.shape == (4, 32, 32, 3)


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """What ``export_bundle`` is asked for, instead of exporting."""
    asked: list[dict] = []

    def export(out: Path, **options) -> Path:
        asked.append(options)
        return out

    monkeypatch.setattr(building, "export_bundle", export)
    return asked


def test_target_small_decoder_and_sizes_reach_the_export(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    decoder = TinyDecoder(TinyDecoderConfig.tiny())
    small = recipe.parent / "small.safetensors"
    save_model(small, decoder, decoder.config)
    lines = [line for line in RECIPE.splitlines() if not line.startswith("precision")]
    recipe.write_text("\n".join(['target = "cpu"', 'tiny_decoder = "small.safetensors"', *lines]))
    asked = recorded(monkeypatch)
    plan = read_recipe(recipe)
    build(tmp_path / "named", plan, sizes=FixedSizes(4, 32, 32), force_quality=True)
    build(tmp_path / "named", plan.override(target="web", precision="w4", name="other"))
    first, second = asked
    assert (first["target"], first["precision"], first["name"]) == ("cpu", None, "from-recipe")
    assert (second["target"], second["precision"], second["name"]) == ("web", "w4", "other")
    assert (first["sizes"], second["sizes"]) == (FixedSizes(4, 32, 32), None)
    assert (first["force_quality"], second["force_quality"]) == (True, False)
    assert isinstance(first["tiny_decoder"], TinyDecoder)
    digest = hashlib.sha256(small.read_bytes()).hexdigest()
    assert first["provenance"]["weights_sha256"]["vae_decoder_tiny"] == digest


def test_precisions_of_other_graphs_reach_the_export_unless_a_flag_says_otherwise(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    recipe.write_text(RECIPE + '\n[precisions]\nvae_decoder = "int8-storage"\n')
    asked = recorded(monkeypatch)
    assert cli.main(["build", str(recipe), "-o", str(tmp_path / "a")]) == 0
    assert cli.main(["build", str(recipe), "-o", str(tmp_path / "b"), "--precision", "int8"]) == 0
    first, second = asked
    assert (first["precision"], second["precision"]) == ("fp16-storage", "int8")
    assert first["other_precisions"] == {"vae_decoder": "int8-storage"}
    assert second["other_precisions"] == {}
    recipe.write_text(RECIPE + "\n[precisions]\nvae_decoder = 8\n")
    with pytest.raises(UsageError, match="precision, got 8") as caught:
        build(tmp_path / "c", read_recipe(recipe))
    assert caught.value.code == "export.precision"


def test_a_decoder_in_int8_storage_is_a_quarter_of_float32_and_draws(recipe: Path, tmp_path: Path):
    sizes, frames = {}, {}
    for name in ("fp32", "fp16-storage", "int8-storage"):
        recipe.write_text(RECIPE + f'\n[precisions]\nvae_decoder = "{name}"\n')
        out = build(tmp_path / name, read_recipe(recipe))
        assert Bundle.open(out).graph("vae_decoder").precision == name
        sizes[name] = (out / "vae_decoder" / "model.onnx").stat().st_size
        with TextToVideoPipeline.from_pretrained(out) as pipe:
            frames[name] = pipe("a small red circle", seed=1).frames.astype(int)
    assert sizes["int8-storage"] < 0.75 * sizes["fp16-storage"] < 0.75 * sizes["fp32"]
    assert np.abs(frames["int8-storage"] - frames["fp32"]).max() <= 6


def test_a_json_recipe_is_read_like_a_toml_one(recipe: Path):
    table = tomllib.loads(RECIPE)
    as_json = recipe.with_suffix(".json")
    as_json.write_text(json.dumps(table))
    assert read_recipe(as_json) == read_recipe(recipe)


def test_recipes_with_unknown_or_wrong_entries_are_refused(recipe: Path):
    for line in ('colour = "red"', "name = 3", 'facts = "x"', 'licence = {owner = "me"}'):
        key = line.split(" ")[0]
        kept = [row for row in RECIPE.splitlines() if not row.startswith((key, f"[{key}"))]
        recipe.write_text("\n".join([line, *kept[: kept.index("[scheduler]")]]))
        with pytest.raises(InputError) as caught:
            read_recipe(recipe)
        assert caught.value.code == "recipe.keys"
        assert key in str(caught.value)


def test_unreadable_recipes_name_the_file(tmp_path: Path):
    bad = tmp_path / "bad.toml"
    bad.write_text("name = ")
    large = tmp_path / "large.toml"
    large.write_bytes(b"#" * (1 << 21))
    listed = tmp_path / "list.json"
    listed.write_text("[1]")
    for path in (bad, large, listed, tmp_path / "absent.toml", tmp_path):
        with pytest.raises(InputError) as caught:
            read_recipe(path)
        assert caught.value.code == "recipe.unreadable"
        assert path.name in str(caught.value)


def test_a_plan_that_lacks_something_names_the_flag(tmp_path: Path):
    with pytest.raises(UsageError, match=r"got no unet.*give --unet"):
        build(tmp_path / "out", BuildPlan())


def test_swapped_checkpoints_are_refused(recipe: Path, tmp_path: Path):
    plan = read_recipe(recipe)
    with pytest.raises(InputError, match="got a AutoencoderKL, expected a VideoUNet"):
        build(tmp_path / "out", plan.override(unet=plan.vae))


def test_unknown_precisions_are_refused():
    with pytest.raises(UsageError, match="int3"):
        check_precision("int3")


def test_missing_facts_are_named(recipe: Path, tmp_path: Path):
    plan = read_recipe(recipe)
    facts = dict(plan.facts)
    del facts["frames"]
    with pytest.raises(InputError, match="frames"):
        build(tmp_path / "out", plan.override(facts=facts))
    facts = {**plan.facts, "wings": 2}
    with pytest.raises(InputError, match="wings"):
        build(tmp_path / "out", plan.override(facts=json.loads(json.dumps(facts))))
