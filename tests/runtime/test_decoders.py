"""Two decoders in one bundle, and graphs of one size: what is opened, chosen and refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tiny_bundle
import tiny_onnx
from fake_graphs import PROMPT, FakeBackend

from hummingbird_runtime import TextToVideoPipeline
from hummingbird_runtime.cli import main
from hummingbird_runtime.errors import InputError
from hummingbird_runtime.manifest import Frames, Graph, Side, Tensor

TINY = "vae_decoder_tiny"


def grey_decoder() -> bytes:
    """A second decoder that draws one colour: whatever it gives, the full one does not."""
    nodes = [
        tiny_onnx.node("Conv", ["latent_sample", "kernel"], ["rgb"]),
        tiny_onnx.node("Resize", ["rgb", "", "scales"], ["sample"], mode="nearest"),
    ]
    side = [("latent_sample", "float32", ["N", 4, "h", "w"])]
    constants = {
        "kernel": np.zeros((3, 4, 1, 1), np.float32), "scales": np.float32([1, 1, 8, 8])
    }  # fmt: skip
    return tiny_onnx.model(nodes, side, [("sample", "float32", ["N", 3, "H", "W"])], constants)


def two_decoders(folder: Path) -> Path:
    graphs = tiny_bundle.graphs()
    graphs[TINY] = dataclasses.replace(graphs["vae_decoder"], path=f"{TINY}/model.onnx")
    content = {**tiny_bundle.files(), f"{TINY}/model.onnx": grey_decoder()}
    return tiny_bundle.write(folder / "two", content, graphs=graphs)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_decoders(tmp_path_factory.mktemp("decoders"))


def test_the_asked_decoder_draws_and_full_is_the_default(both: Path) -> None:
    with TextToVideoPipeline.from_pretrained(both, threads=1) as pipe:
        tiny = pipe(PROMPT, decoder="tiny").frames
        full = pipe(PROMPT, decoder="full").frames
        default = pipe(PROMPT).frames
    assert (tiny == 128).all()
    assert full.std() > 1
    np.testing.assert_array_equal(default, full)


def test_only_what_every_run_needs_is_opened_ahead(both: Path, tiny_bundle_path: Path) -> None:
    graphs = tiny_bundle.graphs()
    graphs[TINY] = graphs["vae_decoder"]
    backend = FakeBackend(graphs, vae_decoder_tiny=lambda feeds: np.zeros((1, 3, 8, 8)))
    with TextToVideoPipeline.from_pretrained(both, backend=backend) as pipe:
        assert backend.log == ["open text_encoder", "open unet"]
        pipe(PROMPT)
        assert "open vae_decoder" in backend.log
        assert f"open {TINY}" not in backend.log
    alone = FakeBackend()
    with TextToVideoPipeline.from_pretrained(tiny_bundle_path, backend=alone):
        assert alone.log == ["open text_encoder", "open unet", "open vae_decoder"]


@pytest.mark.parametrize("verb", ["generate", "sample"])
def test_the_command_takes_the_choice(
    both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, verb: str
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [verb, *([PROMPT] if verb == "generate" else []), "--bundle", str(both)]
    assert main([*words, "-o", "a.npz", "--decoder", "tiny", "--threads", "1"]) == 0
    with np.load("a.npz") as stored:
        assert (stored["frames"] == 128).all()


def test_a_decoder_that_is_not_there_is_named_with_those_that_are(
    tiny_bundle_path: Path, capsys
) -> None:
    assert main(["sample", "--bundle", str(tiny_bundle_path), "-o", "a.npz", "--decoder", "tiny"])
    err = capsys.readouterr().err
    assert err.startswith("error[bundle.no_such_graph]: decoder, got 'tiny'")
    assert "what this bundle has: full" in err


def fixed(graphs: dict[str, Graph], role: str, dims: tuple[int | str, ...]) -> dict[str, Graph]:
    first = Tensor(graphs[role].inputs[0].name, "float32", dims)
    inputs = (first, *graphs[role].inputs[1:])
    return {**graphs, role: dataclasses.replace(graphs[role], inputs=inputs)}


ONE_SIZE = {
    "frames": Frames(trained=6, default=6, allowed=(6, 6)),
    "height": Side(trained=32, default=32, multiple_of=16, allowed=(32, 32)),
    "width": Side(trained=32, default=32, multiple_of=16, allowed=(32, 32)),
}


@pytest.mark.parametrize(
    ("role", "dims", "named"),
    [
        ("unet", ("B", 4, 6, "h", "w"), "model.frames"),
        ("unet", (1, 4, "F", 4, "w"), "model.height"),
        ("unet", ("B", 4, "F", "h", 4), "model.width"),
        ("unet", ("B", 8, "F", "h", "w"), "model.latent_channels"),
        ("vae_decoder", (2, 4, "h", "w"), "model.decode_chunk"),
        ("vae_decoder", ("N", 4, 4, "w"), "model.height"),
    ],
)
def test_facts_that_allow_more_than_a_graph_takes_are_refused(
    tmp_path: Path, role: str, dims: tuple[int | str, ...], named: str
) -> None:
    with pytest.raises(InputError, match=rf"{named}: got .* {role} is fixed, expected") as caught:
        tiny_bundle.write(tmp_path / "x", graphs=fixed(tiny_bundle.graphs(), role, dims))
    assert caught.value.code == "bundle.manifest_invalid"


def test_a_bundle_of_one_size_draws_it_and_fills_the_last_chunk(
    tmp_path: Path, tiny_bundle_path: Path
) -> None:
    graphs = fixed(tiny_bundle.graphs(), "unet", ("B", 4, 6, 4, 4))
    graphs = fixed(graphs, "vae_decoder", (4, 4, 4, 4))
    content = tiny_bundle.files()
    for role in ("unet", "vae_decoder"):
        inputs = [(t.name, t.dtype, list(t.dims)) for t in graphs[role].inputs]
        content[f"{role}/model.onnx"] = getattr(tiny_bundle, role)(inputs=inputs)
    path = tiny_bundle.write(
        tmp_path / "static", content, graphs=graphs, model=tiny_bundle.facts(**ONE_SIZE)
    )
    clips = []
    for bundle in (path, tiny_bundle_path):
        with TextToVideoPipeline.from_pretrained(bundle, threads=1) as pipe:
            clips.append(pipe(PROMPT, seed=1).frames)
            if bundle is path:
                with pytest.raises(InputError, match="expected 6, the only one"):
                    pipe(PROMPT, num_frames=4)
    np.testing.assert_array_equal(*clips)
