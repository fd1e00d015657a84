"""`--upscale` and `--no-upscale`, and what `info` says of an upscaler."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_bundle
import tiny_onnx

from hummingbird_runtime.cli import main
from hummingbird_runtime.manifest import UPSCALER, Graph, Tensor


@pytest.fixture(scope="module")
def upscaling(tmp_path_factory: pytest.TempPathFactory) -> str:
    sides = ("N", 3, "H", "W"), ("N", 3, "sH", "sW")
    graph = Graph(
        path=f"{UPSCALER}/model.onnx",
        opset=18,
        inputs=(Tensor("sample", "float32", sides[0]),),
        outputs=(Tensor("upscaled", "float32", sides[1]),),
        ops=("ai.onnx:Resize",),
    )
    model = tiny_onnx.model(
        [tiny_onnx.node("Resize", ["sample", "", "scales"], ["upscaled"], mode="nearest")],
        [("sample", "float32", list(sides[0]))],
        [("upscaled", "float32", list(sides[1]))],
        {"scales": np.array([1, 1, 4, 4], np.float32)},
    )
    content = {**tiny_bundle.files(), graph.path: model}
    graphs = {**tiny_bundle.graphs(), UPSCALER: graph}
    folder = tmp_path_factory.mktemp("upscaling") / "bundle"
    return str(tiny_bundle.write(folder, content, graphs=graphs))


@pytest.mark.parametrize("verb", ["generate", "sample"])
@pytest.mark.parametrize(("flags", "side"), [((), 128), (("--upscale",), 128),
                                             (("--no-upscale",), 32)])  # fmt: skip
def test_the_command_takes_the_choice(
    upscaling: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    verb: str,
    flags: tuple[str, ...],
    side: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [verb, *(["a red ball"] if verb == "generate" else []), "--bundle", upscaling]
    assert main([*words, "-o", "a.npz", "--threads", "1", "--json", *flags]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["height"], document["width"], document["upscale"]) == (side, side, side == 128)
    assert ("upscale" in document["timings"]) == (side == 128)
    with np.load("a.npz") as stored:
        assert stored["frames"].shape == (6, side, side, 3)


def test_a_bundle_that_cannot_says_so(
    tiny_bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sample", "--bundle", str(tiny_bundle_path), "-o", str(tmp_path / "a.npz")]
    assert main([*words, "--upscale"]) == 3
    assert capsys.readouterr().err.splitlines()[-1].startswith("error[bundle.no_such_graph]: ups")


def test_info_says_to_which_size_frames_are_enlarged(
    upscaling: str, tiny_bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", upscaling]) == 0
    out = capsys.readouterr().out
    assert "upscaled    4 times, to 128 x 128" in out
    assert main(["info", str(tiny_bundle_path)]) == 0
    assert "upscaled" not in capsys.readouterr().out
