"""Bundles: what is written, that the runtime takes it, and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import micro_models
import pytest

from hummingbird_export.package import WeightsLicence
from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.errors import InputError, UsageError
from hummingbird_runtime.schedule import SchedulerConfig
from hummingbird_train.models.text_encoder import TextConfig, TextEncoder

FILES = {
    "LICENSE",
    "README.md",
    "manifest.json",
    "manifest.sha256",
    "measurements.json",
    "model_index.json",
    "probes/text_encoder.0.npy",
    "probes/text_encoder.json",
    "probes/unet.0.npy",
    "probes/unet.1.encoder_hidden_states.npy",
    "probes/unet.1.npy",
    "probes/unet.json",
    "probes/vae_decoder.0.npy",
    "probes/vae_decoder.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.onnx",
    "tokenizer/merges.txt",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "unet/config.json",
    "unet/initializers.json",
    "unet/model.onnx",
    "unet/model.onnx_data",
    "vae_decoder/config.json",
    "vae_decoder/model.onnx",
}


def paths(bundle: Path) -> set[str]:
    return {p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file()}


def test_a_bundle_holds_exactly_its_files_and_their_hashes(guided_bundle: Path):
    assert paths(guided_bundle) == FILES
    manifest = json.loads((guided_bundle / "manifest.json").read_bytes())
    assert set(manifest["files"]) == FILES - {"manifest.json", "manifest.sha256"}
    for path, entry in manifest["files"].items():
        data = (guided_bundle / path).read_bytes()
        assert entry == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    digest = hashlib.sha256((guided_bundle / "manifest.json").read_bytes()).hexdigest()
    assert (guided_bundle / "manifest.sha256").read_text() == digest + "\n"


def test_the_manifest_tells_what_was_measured(guided_bundle: Path, plain_bundle: Path):
    graphs = Bundle.open(guided_bundle).manifest.graphs
    assert set(graphs) == {"text_encoder", "unet", "vae_decoder"}
    for graph in graphs.values():
        assert graph.precision == "fp16-storage"
        assert 0 < graph.parity["relative_l2"] < 1e-4
        assert 0 <= graph.parity["weights_relative_l2"] < 2**-11
    assert graphs["unet"].parity["weights_relative_l2"] > 0
    manifest = Bundle.open(plain_bundle).manifest
    assert "weights_relative_l2" not in manifest.graphs["unet"].parity
    assert manifest.provenance["tools"]["torch"]
    assert set(manifest.provenance["simplification"]) == set(graphs)
    measured = json.loads((guided_bundle / "measurements.json").read_bytes())["graphs"]
    assert measured["unet"]["sizes"] == {"F": 4, "h": 4, "w": 4}
    assert measured["vae_decoder"]["run_seconds_median"] > 0


def test_no_sinusoid_and_no_foreign_operator_enters_a_graph(guided_bundle: Path):
    for graph in Bundle.open(guided_bundle).manifest.graphs.values():
        assert all(op.startswith("ai.onnx:") for op in graph.ops)
        assert not {"ai.onnx:Sin", "ai.onnx:Cos", "ai.onnx:Loop", "ai.onnx:If"} & set(graph.ops)


def test_nothing_in_a_bundle_names_the_machine(guided_bundle: Path):
    for path in paths(guided_bundle):
        data = (guided_bundle / path).read_bytes()
        assert b"site-packages" not in data, path
        assert b"stack_trace" not in data, path
        assert str(Path.home()).encode() + b"/" not in data, path


def test_the_model_card_states_facts_parity_use_limits_and_licence(guided_bundle: Path):
    card = (guided_bundle / "README.md").read_text()
    manifest = Bundle.open(guided_bundle).manifest
    headings = [line[3:] for line in card.splitlines() if line.startswith("## ")]
    assert headings == [
        "Intended use", "Facts", "Graphs and parity", "Limits", "Provenance", "Licence",
    ]  # fmt: skip
    assert "| frames | 4 | 4 | 1 to 26 |" in card
    assert f"{manifest.graphs['unet'].parity['relative_l2']:.1e}" in card
    assert "CC0-1.0" in card
    assert manifest.bundle_id in card
    assert card.startswith("---\nlicense: other\n")
    code = card.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")


def test_facts_and_networks_of_different_models_are_refused(tokenizer_folder: Path, tmp_path: Path):
    unet, vae, text_encoder = micro_models.networks()
    facts = micro_models.facts(unet, vae)
    wrong = [
        {"facts": replace(facts, scaling_factor=1.0)},
        {"facts": replace(facts, latent_channels=3, latent_rgb=((0.0,) * 4,) * 3)},
        {"facts": replace(facts, height=replace(facts.height, multiple_of=8))},
    ]
    for options in wrong:
        with pytest.raises(InputError, match="expected them to be equal") as caught:
            micro_models.export(
                tmp_path / "out", (unet, vae, text_encoder), tokenizer_folder,
                SchedulerConfig(), **options,
            )  # fmt: skip
        assert caught.value.code == "export.mismatch"
    longer = TextEncoder(replace(text_encoder.config, max_length=30))
    with pytest.raises(InputError, match="expected length 30"):
        micro_models.export(
            tmp_path / "out", (unet, vae, longer), tokenizer_folder, SchedulerConfig()
        )
    wide = TextEncoder(replace(TextConfig.tiny(vocab_size=200), width=16))
    with pytest.raises(InputError, match="context_dim"):
        micro_models.export(
            tmp_path / "out", (unet, vae, wide), tokenizer_folder, SchedulerConfig()
        )
    assert not list(tmp_path.iterdir())


def test_a_bundle_without_a_licence_is_refused(tokenizer_folder: Path, tmp_path: Path):
    with pytest.raises(InputError) as caught:
        micro_models.export(
            tmp_path / "out", micro_models.networks(), tokenizer_folder, SchedulerConfig(),
            licence=WeightsLicence("Apache-2.0", " "),
        )  # fmt: skip
    assert caught.value.code == "export.licence"


def test_existing_outputs_are_kept_unless_they_are_bundles(
    guided_bundle: Path, tokenizer_folder: Path, tmp_path: Path
):
    copy = shutil.copytree(guided_bundle, tmp_path / "copy")
    arguments = (micro_models.networks(), tokenizer_folder, SchedulerConfig())
    with pytest.raises(UsageError) as caught:
        micro_models.export(copy, *arguments)
    assert caught.value.code == "output.exists"
    Bundle.open(copy)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("three years")
    with pytest.raises(UsageError) as caught:
        micro_models.export(precious, *arguments, overwrite=True)
    assert caught.value.code == "output.not_a_bundle"
    assert (precious / "thesis.txt").read_text() == "three years"
