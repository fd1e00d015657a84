"""The upscaler as a graph of a bundle: traced, verified, probed, drawn with, refused if wrong."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import micro_models
import numpy as np
import pytest
import quick_export
import tiny_bundle
import torch

from hummingbird_export import build as building
from hummingbird_export.build import BuildPlan, build, read_recipe
from hummingbird_export.facts import FixedSizes, check_frame_networks
from hummingbird_export.networks import compile_networks
from hummingbird_export.random_models import randomize
from hummingbird_export.storage import save_graph
from hummingbird_export.trace import operators, trace
from hummingbird_export.verify import verify_graph
from hummingbird_export.wrappers import upscaler_graph
from hummingbird_runtime import TextToVideoPipeline
from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.cli import main
from hummingbird_runtime.errors import ExecutionError, InputError
from hummingbird_runtime.manifest import UPSCALE
from hummingbird_runtime.schedule import SchedulerConfig
from hummingbird_train.models.tiny_decoder import TinyDecoder, TinyDecoderConfig
from hummingbird_train.models.upscaler import Upscaler, UpscalerConfig
from hummingbird_train.models.weights import save_model

PROMPT = "a small red circle on a black background"


def upscaler(**changes: int) -> Upscaler:
    made = Upscaler(UpscalerConfig(**{"channels": 24, "blocks": 1, **changes}))
    randomize(made, seed=4)
    with torch.no_grad():
        made.conv_out.weight.mul_(0.2)  # most pixels inside the limits, where an error shows
    return made


def test_it_is_traced_and_computes_what_torch_does(tmp_path: Path):
    made = upscaler()
    module, signature = upscaler_graph(made)
    model = trace(module, signature)
    assert set(operators(model)) <= {
        f"ai.onnx:{name}"
        for name in ("Add", "Clip", "Conv", "Relu", "Resize", "DepthToSpace", "Reshape",
                     "Transpose", "Shape", "Concat", "Gather", "Mul", "Constant", "Cast")
    }  # fmt: skip
    path = save_graph(model, tmp_path)
    # Sums of at most 9 * 24 float32 products in another order.
    assert verify_graph(path, module, signature).relative_l2 < 1e-5
    with torch.no_grad():
        made.body[0].conv2.bias[3] += 0.5
    with pytest.raises(ExecutionError, match="graph upscaler: relative L2 error"):
        verify_graph(path, module, signature)


@pytest.fixture(scope="module")
def upscaling(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    """A tiny bundle around the compiled graph and its probe."""
    folder = tmp_path_factory.mktemp("upscaling")
    job = quick_export.job(folder / "draft", "portable")
    job.bundle.mkdir()
    subject = quick_export.subject(job, tokenizer_folder)
    with quick_export.traced_once():
        compiled = compile_networks(
            job, {"upscaler": upscaler()}, {"upscaler": "fp16-storage"}, subject
        )
    written = [path for path in job.bundle.rglob("*") if path.is_file()]
    content = {path.relative_to(job.bundle).as_posix(): path.read_bytes() for path in written}
    return tiny_bundle.write(
        folder / "bundle",
        {**tiny_bundle.files(), **content},
        graphs={**tiny_bundle.graphs(), "upscaler": compiled["upscaler"][0].graph},
    )


def test_a_bundle_draws_what_torch_enlarges(upscaling: Path):
    with TextToVideoPipeline.from_pretrained(upscaling, threads=1) as pipe:
        small = pipe(PROMPT, seed=3, output_type="np", upscale=False)
        large = pipe(PROMPT, seed=3, output_type="np")
    assert large.shape == (6, 128, 128, 3)
    pixels = torch.from_numpy(small).permute(0, 3, 1, 2) * 2 - 1
    with torch.no_grad():
        wanted = ((upscaler()(pixels) + 1) / 2).permute(0, 2, 3, 1).numpy()
    # Weights are rounded to 11 bits: relative errors of 2^-12 in sums of some tens.
    np.testing.assert_allclose(large, wanted, atol=0.01)
    assert np.abs(large - small.repeat(4, 1).repeat(4, 2)).max() > 0.05


def test_its_manifest_entry_and_its_probe_hold(upscaling: Path, capsys):
    graph = Bundle.open(upscaling).manifest.graphs["upscaler"]
    assert graph.precision == "fp16-storage"
    assert graph.inputs[0].dims == ("N", 3, "H", "W")
    assert graph.outputs[0].dims == ("N", 3, "sH", "sW")
    assert graph.parity["cases"] >= 5
    assert graph.parity["relative_l2"] < 1e-4
    assert main(["verify", str(upscaling), "--deep"]) == 0
    assert "upscaler 1x" in "".join(capsys.readouterr())


@pytest.mark.slow
def test_the_whole_export_takes_both_small_networks(tmp_path: Path, tokenizer_folder: Path):
    unet, vae, text = micro_models.networks(guided=False)
    tiny = TinyDecoder(
        dataclasses.replace(TinyDecoderConfig.tiny(vae.config.scaling_factor), channels=(8,))
    )
    randomize(tiny, seed=5)
    out = micro_models.export(
        tmp_path / "bundle",
        (unet, vae, text),
        tokenizer_folder,
        SchedulerConfig(),
        precision="fp16-storage",
        tiny_decoder=tiny,
        upscaler=upscaler(),
    )
    assert {"upscaler", "vae_decoder_tiny"} <= Bundle.open(out).manifest.graphs.keys()
    assert '"_class_name": "Upscaler"' in (out / "upscaler" / "config.json").read_text()
    assert "4 times larger, to 128 x 128 pixels" in (out / "README.md").read_text()
    with TextToVideoPipeline.from_pretrained(out, threads=1) as pipe:
        assert pipe(PROMPT, decoder="tiny").frames.shape == (4, 128, 128, 3)
        assert pipe(PROMPT, upscale=False).frames.shape == (4, 32, 32, 3)


@pytest.mark.slow
def test_a_target_of_one_size_fixes_it_too(tmp_path: Path, tokenizer_folder: Path):
    job = quick_export.job(tmp_path, "ios-coreml", sizes=FixedSizes(4, 32, 32))
    subject = quick_export.subject(job, tokenizer_folder)
    with quick_export.traced_once():
        compiled = compile_networks(
            job, {"upscaler": upscaler()}, {"upscaler": "fp16-storage"}, subject
        )
    assert compiled["upscaler"][0].graph.inputs[0].dims == (job.fixed["N"], 3, 32, 32)


MISFITS = [
    ({"upscaler": {"scale": 2}}, "upscaler's scale"),
    ({"upscaler": {"image_channels": 1}}, "upscaler's image_channels"),
    ({"tiny_decoder": {"patch": 4}}, "tiny decoder's upscale"),
    ({"tiny_decoder": {"latent_channels": 8}}, "tiny decoder's latent_channels"),
]


@pytest.mark.parametrize(("changes", "named"), MISFITS)
def test_networks_that_do_not_fit_the_frames_are_refused(changes: dict, named: str):
    unet, vae, _ = micro_models.networks()
    networks = {}
    for name, values in changes.items():
        networks[name] = (
            upscaler(**values) if name == "upscaler"
            else TinyDecoder(dataclasses.replace(TinyDecoderConfig.tiny(), **values))
        )  # fmt: skip
    with pytest.raises(InputError, match=named) as caught:
        check_frame_networks(micro_models.facts(unet, vae), **networks)
    assert caught.value.code == "export.mismatch"


def test_those_that_fit_are_taken():
    unet, vae, _ = micro_models.networks()
    tiny = TinyDecoder(TinyDecoderConfig.tiny())
    check_frame_networks(micro_models.facts(unet, vae), tiny_decoder=tiny, upscaler=upscaler())
    assert upscaler().config.scale == UPSCALE


def test_a_recipe_names_it_and_its_hash_goes_into_the_provenance(
    tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    unet, vae, text = micro_models.networks()
    for name, network in {"unet": unet, "vae": vae, "text": text, "up": upscaler()}.items():
        save_model(tmp_path / f"{name}.safetensors", network, network.config)
    (tmp_path / "LICENSE").write_text("terms")
    recipe = tmp_path / "build.toml"
    recipe.write_text('upscaler = "up.safetensors"\n[facts]\n[scheduler]\n')
    plan = read_recipe(recipe)
    assert plan.upscaler == tmp_path / "up.safetensors"
    asked = []
    monkeypatch.setattr(building, "export_bundle", lambda out, **given: asked.append(given) or out)
    plan = plan.override(
        unet=tmp_path / "unet.safetensors",
        vae=tmp_path / "vae.safetensors",
        text=tmp_path / "text.safetensors",
        tokenizer=tokenizer_folder,
        facts=dataclasses.asdict(micro_models.facts(unet, vae)),
        licence_name="CC0-1.0",
        licence_file=tmp_path / "LICENSE",
    )
    build(tmp_path / "out", plan)
    assert isinstance(asked[0]["upscaler"], Upscaler)
    digest = hashlib.sha256((tmp_path / "up.safetensors").read_bytes()).hexdigest()
    assert asked[0]["provenance"]["weights_sha256"]["upscaler"] == digest
    with pytest.raises(InputError, match="got a VideoUNet, expected a Upscaler"):
        build(tmp_path / "out", plan.override(upscaler=tmp_path / "unet.safetensors"))
    assert BuildPlan().upscaler is None
