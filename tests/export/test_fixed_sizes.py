"""Targets of one clip size: the same operators, numbers for letters, no other size is drawn."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import micro_models
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import quick_export

from hummingbird_export.compile import compile_graph, fix_sizes, fixed_tensors
from hummingbird_export.facts import FixedSizes, narrow
from hummingbird_export.random_models import TINY_DDIM
from hummingbird_export.targets import TARGETS
from hummingbird_export.torch_pipeline import TorchPipeline
from hummingbird_export.wrappers import unet_graph
from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.errors import InputError
from hummingbird_runtime.manifest import ModelFacts, Tensor
from hummingbird_runtime.pipeline import TextToVideoPipeline

SIZES = FixedSizes(frames=6, height=48, width=16)
LETTERS = {"F": 6, "N": 3, "h": 6, "w": 2, "H": 48, "W": 16}
PROMPT = "a small red circle"


def facts(**changes) -> ModelFacts:
    unet, vae, _ = quick_export.networks()
    return micro_models.facts(unet, vae, **changes)


@pytest.fixture(scope="module")
def fixed_bundle(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    out = tmp_path_factory.mktemp("fixed") / "bundle"
    return quick_export.export(
        out, tokenizer_folder, target="ios-coreml", precision="fp32", sizes=SIZES,
        scheduler=TINY_DDIM,
    )  # fmt: skip


def multiset(path: Path) -> Counter[tuple[str, str]]:
    return Counter((node.domain, node.op_type) for node in onnx.load(path).graph.node)


def dims(path: Path) -> dict[str, list[int | str]]:
    graph = onnx.load(path, load_external_data=False).graph
    return {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }


def test_a_fixed_graph_has_the_operators_of_the_free_one_and_numbers_for_letters(
    fixed_bundle: Path, quick_bundle: Path
):
    manifest = Bundle.open(fixed_bundle).manifest
    assert manifest.target == "ios-coreml"
    for role, graph in manifest.graphs.items():
        paths = [bundle / role / "model.onnx" for bundle in (fixed_bundle, quick_bundle)]
        assert multiset(paths[0]) == multiset(paths[1])
        fixed, free = map(dims, paths)
        assert fixed.keys() == free.keys()
        for name, sizes in free.items():
            assert fixed[name] == [LETTERS.get(size, size) for size in sizes]
        assert {t.name: list(t.dims) for t in (*graph.inputs, *graph.outputs)} == fixed
        assert not any(isinstance(size, str) for sizes in fixed.values() for size in sizes)
        onnx.checker.check_model(str(paths[0]), full_check=True)
    assert dims(quick_bundle / "unet" / "model.onnx")["sample"] == [1, 4, "F", "h", "w"]
    assert dims(fixed_bundle / "unet" / "model.onnx")["sample"] == [1, 4, 6, 6, 2]


def test_the_facts_allow_only_what_the_graphs_take(fixed_bundle: Path):
    found = Bundle.open(fixed_bundle).manifest.model
    assert (found.frames.default, found.frames.allowed) == (6, (6, 6))
    assert (found.height.default, found.height.allowed) == (48, (48, 48))
    assert (found.width.default, found.width.allowed) == (16, (16, 16))
    assert (found.frames.trained, found.height.trained, found.width.trained) == (4, 32, 32)
    wide = facts()
    assert dataclasses.replace(
        found, frames=wide.frames, height=wide.height, width=wide.width
    ) == wide  # fmt: skip


def test_the_runtime_draws_that_size_and_refuses_every_other(fixed_bundle: Path):
    opened = Bundle.open(fixed_bundle)
    oracle = TorchPipeline(*quick_export.networks(), opened.scheduler, opened.manifest.model)
    with TextToVideoPipeline.from_pretrained(fixed_bundle, threads=1) as pipe:
        video = pipe(PROMPT, seed=3)
        assert video.frames.shape == (6, 48, 16, 3)
        clip = oracle(pipe.tokenizer.encode(PROMPT).ids, seed=3)
        assert np.abs(clip.frames.astype(int) - video.frames).max() <= 1
        for other in ({"num_frames": 4}, {"height": 32}, {"width": 32}):
            with pytest.raises(InputError, match="expected") as caught:
                pipe(PROMPT, **other)
            assert caught.value.code.startswith("request.")


def test_the_default_size_is_fixed_where_none_is_asked():
    assert FixedSizes.default(facts()) == FixedSizes(4, 32, 32)
    assert SIZES.letters(facts()) == LETTERS


@pytest.mark.parametrize(
    ("sizes", "what"),
    [
        (FixedSizes(27, 32, 32), "frames, got 27, expected a multiple of 1 from 1 to 26"),
        (FixedSizes(0, 32, 32), "frames, got 0"),
        (FixedSizes(4, 36, 32), "height, got 36, expected a multiple of 8 from 16 to 64"),
        (FixedSizes(4, 32, 8), "width, got 8"),
        (FixedSizes(4, 32, 72), "width, got 72"),
    ],
)
def test_a_size_that_the_model_does_not_take_is_refused_before_any_work(
    sizes: FixedSizes, what: str, tmp_path: Path, tokenizer_folder: Path
):
    with pytest.raises(InputError, match=what) as caught:
        quick_export.export(
            tmp_path / "out", tokenizer_folder, target="android-qnn", precision="int8", sizes=sizes
        )
    assert caught.value.code == "export.size"
    assert "8 pixels" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_narrowing_keeps_what_is_free():
    wide = facts()
    assert narrow(wide, {}, fewest_frames=1) == wide
    cut = narrow(wide, {}, fewest_frames=3)
    assert cut.frames.allowed == (3, 26)
    assert dataclasses.replace(cut, frames=wide.frames) == wide
    few = facts(frames={"trained": 4, "default": 4, "allowed": [4, 26]})
    assert narrow(few, {}, fewest_frames=3).frames.allowed == (4, 26)


def test_letters_that_are_not_fixed_stay():
    tensors = (Tensor("x", "float32", (1, "F", "L", 3)),)
    assert fixed_tensors(tensors, {"F": 6}) == (Tensor("x", "float32", (1, 6, "L", 3)),)
    assert fixed_tensors(tensors, {}) == tensors


def test_fixing_changes_the_signature_alone(tmp_path: Path):
    """Weights in external data stay where they are, metadata too."""
    unet, _, text_encoder = quick_export.networks()
    module, signature = unet_graph(unet, tokens=text_encoder.config.max_length)
    compiled = compile_graph(quick_export.job(tmp_path, "cpu"), unet, module, signature, "fp32")
    before = ir.load(compiled.path)
    data = compiled.path.with_name("model.onnx_data")
    content = data.read_bytes()
    fix_sizes(compiled.path, LETTERS)
    after = ir.load(compiled.path)
    assert data.read_bytes() == content
    assert after.metadata_props == before.metadata_props != {}
    kinds = [[(node.name, node.op_type) for node in model.graph] for model in (before, after)]
    assert kinds[0] == kinds[1]
    assert after.graph.inputs[0].shape == [1, 4, 6, 6, 2]
    for name, value in before.graph.initializers.items():
        assert after.graph.initializers[name].const_value.nbytes == value.const_value.nbytes


@pytest.mark.slow
@pytest.mark.parametrize("target", [*(t.name for t in TARGETS if t.static_sizes), "igpu-webgpu"])
def test_every_target_of_one_size_gives_a_bundle_that_draws(
    target: str, tmp_path: Path, tokenizer_folder: Path
):
    out = quick_export.export(tmp_path / "out", tokenizer_folder, target=target, sizes=SIZES)
    with TextToVideoPipeline.from_pretrained(out) as pipe:
        assert pipe(PROMPT, num_inference_steps=1).frames.shape == (6, 48, 16, 3)
