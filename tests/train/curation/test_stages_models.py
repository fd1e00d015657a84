"""Stages that take a user's model, on tiny ONNX models whose answers are known by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from hummingbird_runtime.errors import ExecutionError, HummingbirdError, InputError
from hummingbird_train.curation.clip import Clip, make_clip
from hummingbird_train.curation.decode import score_clip
from hummingbird_train.curation.defects import write_h264
from hummingbird_train.curation.stage import build_stages
from hummingbird_train.curation.stages.caption_match import read_caption
from hummingbird_train.curation.stages.clip_match import embed_frames, embed_text
from hummingbird_train.curation.stages.dover import fuse, run_dover
from hummingbird_train.curation.stages.dover_views import (
    MEAN,
    STD,
    DoverPlan,
    aesthetic_view,
    frame_numbers,
    resize,
    technical_view,
)
from hummingbird_train.curation.stages.text import text_map
from hummingbird_train.curation.stages.transnet import transition_chance
from hummingbird_train.world.grammar import caption
from hummingbird_train.world.scene import sample_scene

onnx = pytest.importorskip("onnx")
pytest.importorskip("cv2")
pytest.importorskip("av")

FLOAT = onnx.TensorProto.FLOAT


def _save(path: Path, nodes: list, inputs: list, outputs: list, constants: list = ()) -> str:
    graph = onnx.helper.make_graph(nodes, "g", inputs, outputs, list(constants))
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10
    )
    onnx.save(model, path)
    return str(path)


def _array(name: str, value: object, kind: type = np.int64) -> object:
    return onnx.numpy_helper.from_array(np.array(value, kind), name)


def _tensor(name: str, shape: list, kind: int = FLOAT) -> object:
    return onnx.helper.make_tensor_value_info(name, kind, shape)


def _two_branches(
    path: Path,
    names: tuple[str, str] = ("aesthetic", "technical"),
    batch: object = "n",
    turned: bool = False,
) -> str:
    """Each output is the mean of its view; the technical one also adds 0.5 to tell them apart."""
    node = onnx.helper.make_node
    views = [("aes_view", 1, names[0]), ("tech_view", batch, names[1])]
    nodes = [
        node("ReduceMean", ["aes_view", "axes"], [names[0]], keepdims=1),
        node("ReduceMean", ["tech_view", "axes"], ["mean"], keepdims=1),
        node("Add", ["mean", "half"], [names[1]]),
    ]
    return _save(
        path,
        nodes,
        [_tensor(view, [n, 3, 32, 224, 224]) for view, n, _ in views],
        [_tensor(name, [n, 1, 1, 1, 1]) for _, n, name in views][:: -1 if turned else 1],
        [_array("axes", [1, 2, 3, 4]), _array("half", 0.5, np.float32)],
    )


def _views() -> tuple[np.ndarray, np.ndarray]:
    """Views of constant value: aesthetic 0.25; technical clips of 1, 2 and 6, whose mean is 3."""
    aesthetic = np.full((1, 3, 32, 224, 224), 0.25, np.float32)
    technical = np.empty((3, 3, 32, 224, 224), np.float32)
    technical[:] = np.array([1, 2, 6], np.float32)[:, None, None, None, None]
    return aesthetic, technical


@pytest.fixture(scope="module")
def views() -> tuple[np.ndarray, np.ndarray]:
    return _views()


@pytest.mark.parametrize("batch", ["n", 4, 1])
def test_dover_runs_any_fixed_batch_and_averages_the_clips(
    tmp_path: Path, views: tuple, batch: object
) -> None:
    path = _two_branches(tmp_path / "d.onnx", batch=batch)
    assert run_dover(path, *views) == pytest.approx((0.25, 3.5), abs=1e-4)


def test_dover_takes_outputs_by_name_or_by_a_stated_order(tmp_path: Path, views: tuple) -> None:
    turned = _two_branches(tmp_path / "t.onnx", ("aes_score", "tech_score"), turned=True)
    assert run_dover(turned, *views) == pytest.approx((0.25, 3.5), abs=1e-4)
    nameless = _two_branches(tmp_path / "n.onnx", ("out_0", "out_1"))
    stated = run_dover(nameless, *views, "aesthetic,technical")
    assert stated == pytest.approx((0.25, 3.5), abs=1e-4)
    with pytest.raises(InputError, match="maps"):  # three clips cannot come from one view
        run_dover(nameless, *views, "technical,aesthetic")


def test_dover_refuses_what_it_would_have_to_guess(tmp_path: Path, views: tuple) -> None:
    nameless = _two_branches(tmp_path / "n.onnx", ("out_0", "out_1"))
    for order in ("", "first,second"):
        with pytest.raises(InputError) as caught:
            run_dover(nameless, *views, order)
        assert caught.value.code == "stage.interface"
    (tmp_path / "x.onnx").write_bytes(b"no model")
    for path in ("x.onnx", "none.onnx"):
        with pytest.raises(InputError) as caught:
            run_dover(str(tmp_path / path), *views)
        assert caught.value.code == "stage.model"


def test_fusion_has_the_published_constants() -> None:
    # t = (0.18425 - 0.1107) / 0.07355 = 1; a = (-0.04511 + 0.08285) / 0.03774 = 1
    overall, aesthetic, technical = fuse(-0.04511, 0.18425)
    one = 1 / (1 + math.exp(-1))
    assert (overall, aesthetic, technical) == pytest.approx((one, one, one), abs=1e-9)
    # t = 0, a = 2: 0.3896 x 2
    assert fuse(-0.00737, 0.1107)[0] == pytest.approx(1 / (1 + math.exp(-0.7792)), abs=1e-9)
    assert fuse(-1e6, -1e6) == (0.0, 0.0, 0.0)


def test_frames_of_both_views_lie_in_their_shares() -> None:
    technical, aesthetic = frame_numbers(600, "some clip")
    clips = technical.reshape(3, 32)
    assert (np.diff(clips, axis=1) == 2).all()
    for k, row in enumerate(clips):
        assert 200 * k <= row[0] < 200 * k + 136
    shares = 600 // 32 * np.arange(32)
    assert ((aesthetic >= shares) & (aesthetic < shares + 16)).all()
    assert len(set((aesthetic - shares).tolist())) > 3
    again = frame_numbers(600, "some clip")
    assert (again[0] == technical).all()
    assert not (frame_numbers(600, "another")[0] == technical).all()


def test_short_clips_wrap_around() -> None:
    technical, aesthetic = frame_numbers(26, "x")
    assert technical[:32].tolist() == [2 * k % 26 for k in range(32)]
    assert technical[32] == 26 // 3
    assert aesthetic.tolist() == [0] * 32  # shares of no frame all begin at the first
    chosen, _ = DoverPlan().select(np.arange(26) / 8, np.zeros(26, bool), "x")
    assert chosen.tolist() == sorted({*technical.tolist(), 0})


def test_patches_are_unscaled_pieces_at_one_place_for_a_whole_clip() -> None:
    height, width = 336, 596
    place = np.indices((height, width))  # a pixel says where it is from: row, column mod 256
    still = np.stack([place[0] % 256, place[1] % 256, place[1] // 256], axis=2).astype(np.uint8)
    frames = np.repeat(still[None], 96, axis=0)
    view = technical_view(frames, "clip")
    assert view.shape == (3, 3, 32, 224, 224)
    raw = view * STD[:, None, None, None] + MEAN[:, None, None, None]
    raw = np.rint(raw).astype(int)
    corners = set()
    for clip in range(3):
        assert (raw[clip] == raw[clip][:, :1]).all()
        for i in range(7):
            for j in range(7):
                patch = raw[clip, :, 0, 32 * i : 32 * i + 32, 32 * j : 32 * j + 32]
                x = patch[1, 0, 0] + 256 * patch[2, 0, 0]
                y = patch[0, 0, 0] + (256 if 48 * i > patch[0, 0, 0] else 0)
                assert 48 * i <= y < 48 * i + 16
                assert 85 * j <= x < 85 * j + 53
                expected = still[y : y + 32, x : x + 32].transpose(2, 0, 1)
                assert (patch == expected).all()
                corners.add((clip, y - 48 * i, x - 85 * j))
    assert len(corners) > 30
    assert (technical_view(frames, "clip") == view).all()
    assert not (technical_view(frames, "other") == view).all()


def test_a_small_picture_is_enlarged_first() -> None:
    frames = np.full((96, 64, 96, 3), 77, np.uint8)
    view = technical_view(frames, "clip")
    assert view.shape == (3, 3, 32, 224, 224)
    # 77 or, floored, 76
    assert np.abs(view[:, 0] - (77 - 123.675) / 58.395).max() < 0.02


@pytest.mark.parametrize(
    ("old", "new", "scale"), [((50, 70), (224, 224), None), ((64, 96), (224, 336), 3.5)]
)
def test_resizing_is_that_of_torch(old: tuple, new: tuple, scale: float | None) -> None:
    torch = pytest.importorskip("torch")
    frames = np.random.default_rng(0).integers(0, 256, (1, *old, 3), np.uint8)
    planes = torch.from_numpy(frames.transpose(0, 3, 1, 2).astype(np.float32))
    how = {"size": new} if scale is None else {"scale_factor": scale}
    theirs = torch.nn.functional.interpolate(planes, mode="bilinear", **how).numpy()
    # torch places its samples in float32: 1e-5 pixels of steps up to 255
    assert np.abs(resize(frames, *new, scale) - theirs.transpose(0, 2, 3, 1)).max() < 0.01


def test_the_aesthetic_view_is_squeezed_and_standardised() -> None:
    frames = np.full((32, 90, 160, 3), (124, 116, 104), np.uint8)
    view = aesthetic_view(frames)
    assert view.shape == (1, 3, 32, 224, 224)
    expected = (np.array([124, 116, 104]) - MEAN) / STD
    assert view[0, :, 5, 100, 100] == pytest.approx(expected, abs=1e-6)


def test_dover_scores_a_file(tmp_path: Path) -> None:
    frames = np.full((26, 240, 256, 3), 128, np.uint8)
    write_h264(tmp_path / "a.mp4", frames)
    path = _two_branches(tmp_path / "d.onnx")
    scores = score_clip(make_clip(tmp_path / "a.mp4"), build_stages({"dover": {"model": path}}))
    grey = float(((128 - MEAN) / STD).mean())
    # one grey level of the codec is 0.018
    assert scores["dover"]["aesthetic_raw"] == pytest.approx(grey, abs=0.02)
    assert scores["dover"]["technical_raw"] == pytest.approx(grey + 0.5, abs=0.02)
    expected = fuse(scores["dover"]["aesthetic_raw"], scores["dover"]["technical_raw"])
    assert scores["dover"]["overall"] == pytest.approx(expected[0])


def test_the_file_of_a_model_is_a_parameter(tmp_path: Path) -> None:
    path = _two_branches(tmp_path / "d.onnx")
    (stage,) = build_stages({"dover": {"model": path}})
    before = stage.parameters()
    _two_branches(tmp_path / "d.onnx", ("aes_2", "tech_2"))
    assert stage.parameters() != before


def _clip_model(folder: Path) -> None:
    """text_embeds = (first id after the start, 1); image_embeds = (mean of red, mean of green)."""
    node = onnx.helper.make_node
    _save(
        folder / "text_model.onnx",
        [
            node("Gather", ["input_ids", "second"], ["id"], axis=1),
            node("Cast", ["id"], ["number"], to=FLOAT),
            node("Concat", ["number", "one"], ["text_embeds"], axis=1),
        ],
        [_tensor("input_ids", [1, 77], onnx.TensorProto.INT64)],
        [_tensor("text_embeds", [1, 2])],
        [_array("second", [1]), _array("one", [[1.0]], np.float32)],
    )
    _save(
        folder / "vision_model.onnx",
        [
            node("ReduceMean", ["pixel_values", "axes"], ["means"], keepdims=0),
            node("Slice", ["means", "from", "to", "axis"], ["image_embeds"]),
        ],
        [_tensor("pixel_values", ["n", 3, 224, 224])],
        [_tensor("image_embeds", ["n", 2])],
        [_array("axes", [2, 3]), _array("from", [0]), _array("to", [2]), _array("axis", [1])],
    )
    from hummingbird_runtime.bytepairs import END_OF_WORD, byte_alphabet

    letters = sorted(byte_alphabet().values())
    words = [*letters, *(letter + END_OF_WORD for letter in letters)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: k for k, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")


def test_clip_match_is_the_cosine_of_caption_and_frames(tmp_path: Path) -> None:
    _clip_model(tmp_path)
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    text = embed_text(str(tmp_path), "a")
    number = vocabulary["a</w>"]
    assert text == pytest.approx(np.array([number, 1]) / math.hypot(number, 1), rel=1e-6)
    frames = np.zeros((2, 300, 400, 3), np.uint8)
    frames[0, :, 50:350, 0] = 255  # the centre square is red
    images = embed_frames(str(tmp_path), frames, 224)
    red = np.array([(1 - 0.48145466) / 0.26862954, -0.4578275 / 0.26130258])
    assert images[0] == pytest.approx(red / np.linalg.norm(red), rel=1e-4)
    write_h264(tmp_path / "a.mp4", np.repeat(frames[:1], 4, axis=0))
    stages = build_stages({"clip_match": {"model": str(tmp_path)}})
    scores = score_clip(make_clip(tmp_path / "a.mp4", caption="a"), stages)["clip_match"]
    assert scores["mean"] == pytest.approx(float(images[0] @ text), abs=0.03)
    assert scores["least"] <= scores["mean"]
    with pytest.raises(InputError) as caught:
        score_clip(make_clip(tmp_path / "a.mp4"), stages)
    assert caught.value.code == "stage.caption"


def test_transnet_windows_cover_every_frame_once(tmp_path: Path) -> None:
    node = onnx.helper.make_node
    # the "logit" of a frame is its mean grey - 100
    path = _save(
        tmp_path / "t.onnx",
        [
            node("ReduceMean", ["frames", "axes"], ["mean"], keepdims=0),
            node("Sub", ["mean", "hundred"], ["logits"]),
        ],
        [_tensor("frames", [1, 100, 27, 48, 3])],
        [_tensor("logits", [1, 100])],
        [_array("axes", [2, 3, 4]), _array("hundred", 100.0, np.float32)],
    )
    greys = (np.arange(130) * 1.6).astype(np.uint8)
    frames = np.broadcast_to(greys[:, None, None, None], (130, 54, 96, 3))
    chance = transition_chance(np.ascontiguousarray(frames), path)
    expected = 1 / (1 + np.exp(-(greys.astype(float) - 100)))
    assert chance == pytest.approx(expected, abs=1e-4)


def test_the_detector_sees_the_frame_in_its_own_numbers(tmp_path: Path) -> None:
    # a "detector" that answers with its blue channel, the first one: 255 is 1, 0 is -1
    node = onnx.helper.make_node("Slice", ["x", "from", "to", "axis"], ["y"])
    path = _save(
        tmp_path / "t.onnx", [node],
        [_tensor("x", [1, 3, "h", "w"])], [_tensor("y", [1, 1, "h", "w"])],
        [_array("from", [0]), _array("to", [1]), _array("axis", [1])],
    )  # fmt: skip
    frame = np.zeros((100, 180, 3), np.uint8)
    frame[:, 90:, 2] = 255
    chance = text_map(frame, path, 64)
    assert chance.shape == (64, 128)
    assert (chance[:, :60] == -1).all()
    assert (chance[:, 68:] == 1).all()


def test_a_model_that_fails_is_a_typed_error(tmp_path: Path) -> None:
    _clip_model(tmp_path)
    with pytest.raises((ExecutionError, InputError)) as caught:
        embed_frames(str(tmp_path), np.zeros((1, 64, 64, 3), np.uint8), 200)
    assert isinstance(caught.value, HummingbirdError)
    assert caught.value.code == "stage.run"


@pytest.mark.parametrize("tier", [1, 2])
@pytest.mark.parametrize("templates", ["train", "judge"])
def test_every_caption_of_the_world_is_read_back(tier: int, templates: str) -> None:
    rng = np.random.default_rng(tier)
    for _ in range(300):
        scene = sample_scene(rng, tier=tier)
        named = read_caption(caption(scene, rng, templates=templates))
        facts = {name: getattr(scene, name) for name in named}
        assert named == facts
        assert {"shape", "colour", "size", "background"} <= named.keys()
        assert "motion" in named or scene.motion == "still"


def test_a_caption_of_something_else_names_nothing() -> None:
    assert read_caption("two dogs on a beach at noon") == {}
    assert Clip("0", "a.mp4").caption == ""
