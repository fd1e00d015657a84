"""The upscaler: when it runs, what it is fed, what comes out, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tiny_bundle
import tiny_onnx
from fake_graphs import PROMPT, FakeBackend

from hummingbird_runtime import TextToVideoPipeline
from hummingbird_runtime.cancel import CancelToken
from hummingbird_runtime.decode import upscale_chunks
from hummingbird_runtime.errors import (
    Cancelled,
    ExecutionError,
    HummingbirdError,
    InputError,
    UsageError,
)
from hummingbird_runtime.events import Done, Frames
from hummingbird_runtime.manifest import UPSCALE, UPSCALER, Graph, Tensor
from hummingbird_runtime.probe_cases import probe_cases

FREE = ("N", 3, "H", "W")


def entry(dims: tuple[int | str, ...] = FREE) -> Graph:
    return Graph(
        path=f"{UPSCALER}/model.onnx",
        opset=18,
        inputs=(Tensor("sample", "float32", dims),),
        outputs=(Tensor("upscaled", "float32", ("N", 3, "sH", "sW")),),
        ops=("ai.onnx:Resize",),
    )


def repeating(dims: tuple[int | str, ...] = FREE, scale: int = UPSCALE) -> bytes:
    """Every pixel becomes a square of ``scale`` x ``scale`` equal ones."""
    return tiny_onnx.model(
        [tiny_onnx.node("Resize", ["sample", "", "scales"], ["upscaled"], mode="nearest")],
        [("sample", "float32", list(dims))],
        [("upscaled", "float32", ["N", 3, "sH", "sW"])],
        {"scales": np.array([1, 1, scale, scale], np.float32)},
    )


def bundle_with(folder: Path, model: bytes, graph: Graph, **facts) -> Path:
    content = {**tiny_bundle.files(), graph.path: model}
    return tiny_bundle.write(
        folder,
        content,
        graphs={**tiny_bundle.graphs(), UPSCALER: graph},
        model=tiny_bundle.facts(decode_chunk=6, **facts),
    )


@pytest.fixture(scope="module")
def upscaling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle_with(tmp_path_factory.mktemp("upscaling") / "bundle", repeating(), entry())


def four_times(frames: np.ndarray) -> np.ndarray:
    return frames.repeat(UPSCALE, axis=1).repeat(UPSCALE, axis=2)


def test_frames_are_enlarged_by_default_and_left_alone_on_request(upscaling: Path) -> None:
    with TextToVideoPipeline.from_pretrained(upscaling, threads=1) as pipe:
        plain = pipe(PROMPT, upscale=False)
        default, asked = pipe(PROMPT), pipe(PROMPT, upscale=True)
        floats, small = (pipe(PROMPT, output_type="np", upscale=u) for u in (None, False))
    assert plain.frames.shape == (6, 32, 32, 3)
    assert len({frame.tobytes() for frame in plain.frames}) == 6  # a swap would be seen
    np.testing.assert_array_equal(default.frames, four_times(plain.frames))
    np.testing.assert_array_equal(asked.frames, default.frames)
    np.testing.assert_array_equal(floats, four_times(small))
    assert "upscale" not in plain.timings
    assert default.timings["upscale"] > 0
    stages = [seconds for name, seconds in default.timings.items() if name != "total"]
    assert default.timings["total"] == pytest.approx(sum(stages))


def test_latents_stay_as_they_are(upscaling: Path, tiny_bundle_path: Path) -> None:
    latents = []
    for path in (upscaling, tiny_bundle_path):
        with TextToVideoPipeline.from_pretrained(path, threads=1) as pipe:
            latents.append(pipe(PROMPT, output_type="latent"))
    np.testing.assert_array_equal(*latents)


def test_frames_appear_in_small_parts_that_tile_the_clip(upscaling: Path) -> None:
    with TextToVideoPipeline.from_pretrained(upscaling, threads=1) as pipe:
        events = list(pipe.stream(PROMPT, num_frames=11))
    parts = [event for event in events if isinstance(event, Frames)]
    assert [(p.start, len(p.array)) for p in parts] == [(0, 4), (4, 2), (6, 4), (10, 1)]
    done = events[-1]
    assert isinstance(done, Done)
    np.testing.assert_array_equal(np.concatenate([p.array for p in parts]), done.video.frames)


def fake(graphs=None, **functions) -> FakeBackend:
    known = {**tiny_bundle.graphs(), UPSCALER: entry()} if graphs is None else graphs
    return FakeBackend(known, **{UPSCALER: lambda feeds: larger(feeds["sample"]), **functions})


def larger(sample: np.ndarray) -> np.ndarray:
    return sample.repeat(UPSCALE, axis=2).repeat(UPSCALE, axis=3)


def test_it_is_opened_when_first_needed_and_closed_after_the_stage_on_low_memory(
    upscaling: Path,
) -> None:
    backend = fake()
    with TextToVideoPipeline.from_pretrained(upscaling, backend=backend) as pipe:
        pipe(PROMPT, upscale=False)
        assert f"open {UPSCALER}" not in backend.log
        pipe(PROMPT)
        pipe(PROMPT)
        assert backend.log.count(f"open {UPSCALER}") == 1
    frugal = fake()
    with TextToVideoPipeline.from_pretrained(upscaling, backend=frugal, low_memory=True) as pipe:
        pipe(PROMPT)
        assert frugal.log[-2:] == [f"close {UPSCALER}", "close vae_decoder"]


def test_it_is_fed_few_frames_at_once_all_within_its_range(upscaling: Path) -> None:
    seen = []

    def decode(feeds):
        n, _, h, w = feeds["latent_sample"].shape
        return np.linspace(-3, 3, n * 3 * 64 * h * w, dtype=np.float32).reshape(n, 3, 8 * h, 8 * w)

    def upscale(feeds):
        seen.append(feeds["sample"])
        return larger(feeds["sample"])

    backend = fake(vae_decoder=decode, upscaler=upscale)
    with TextToVideoPipeline.from_pretrained(upscaling, backend=backend) as pipe:
        pipe(PROMPT, num_frames=6)
    assert [len(sample) for sample in seen] == [4, 2]
    assert all(sample.flags.c_contiguous for sample in seen)
    assert min(s.min() for s in seen) == -1.0
    assert max(s.max() for s in seen) == 1.0
    whole = decode({"latent_sample": np.empty((6, 4, 4, 4))})
    np.testing.assert_array_equal(np.concatenate(seen), np.clip(whole, -1, 1))


def test_a_graph_for_one_number_of_frames_gets_the_last_one_repeated(tmp_path: Path) -> None:
    dims = (4, 3, 32, 32)
    sides = {
        name: dataclasses.replace(getattr(tiny_bundle.facts(), name), allowed=(32, 32))
        for name in ("height", "width")
    }
    path = bundle_with(tmp_path / "fixed", repeating(dims), entry(dims), **sides)
    with TextToVideoPipeline.from_pretrained(path, threads=1) as pipe:
        clip, plain = pipe(PROMPT).frames, pipe(PROMPT, upscale=False).frames
    np.testing.assert_array_equal(clip, four_times(plain))


def test_facts_that_allow_more_than_a_fixed_upscaler_takes_are_refused(tmp_path: Path) -> None:
    dims = ("N", 3, 32, "W")
    with pytest.raises(InputError, match="graph upscaler is fixed") as caught:
        bundle_with(tmp_path / "x", repeating(dims), entry(dims))
    assert caught.value.code == "bundle.manifest_invalid"


@pytest.mark.parametrize("scale", [2, 8])
def test_another_scale_is_an_error_with_both_shapes(tmp_path: Path, scale: int) -> None:
    path = bundle_with(tmp_path / "odd", repeating(scale=scale), entry())
    with TextToVideoPipeline.from_pretrained(path, threads=1) as pipe:
        with pytest.raises(ExecutionError) as caught:
            pipe(PROMPT)
        assert pipe(PROMPT, upscale=False).frames.shape == (6, 32, 32, 3)
    assert caught.value.code == "runtime.upscaler_shape"
    side = 32 * scale
    assert f"got [4, {side}, {side}, 3], expected [4, 128, 128, 3]" in str(caught.value)


def test_what_is_not_finite_is_refused_and_the_pipeline_lives_on(upscaling: Path) -> None:
    backend = fake(upscaler=lambda feeds: larger(feeds["sample"]) * np.float32(np.nan))
    with TextToVideoPipeline.from_pretrained(upscaling, backend=backend) as pipe:
        with pytest.raises(ExecutionError, match=r"upscaled frames \(upscaler\)") as caught:
            pipe(PROMPT)
        assert caught.value.code == "numeric.non_finite"
        backend.functions[UPSCALER] = lambda feeds: larger(feeds["sample"])
        assert pipe(PROMPT, upscale=False).frames.shape == (6, 32, 32, 3)


def test_a_run_can_be_cancelled_between_its_parts(upscaling: Path) -> None:
    token, calls = CancelToken(), []

    def upscale(feeds):
        calls.append(len(feeds["sample"]))
        token.cancel()
        return larger(feeds["sample"])

    backend = fake(upscaler=upscale)
    pipe = TextToVideoPipeline.from_pretrained(upscaling, backend=backend)
    with pipe, pytest.raises(Cancelled):
        pipe(PROMPT, cancel=token)
    assert calls == [4]


REFUSED: list[tuple[dict[str, object], type[HummingbirdError], str]] = [
    ({"upscale": True}, InputError, "bundle.no_such_graph"),
    ({"upscale": 4}, UsageError, "request.type"),
    ({"upscale": "yes"}, UsageError, "request.type"),
    ({"upscale": True, "output_type": "latent"}, UsageError, "request.upscale"),
]


@pytest.mark.parametrize(("options", "kind", "code"), REFUSED)
def test_wrong_wishes_are_refused_before_any_work(
    tiny_bundle_path: Path, options: dict[str, object], kind: type[HummingbirdError], code: str
) -> None:
    backend = FakeBackend()
    with TextToVideoPipeline.from_pretrained(tiny_bundle_path, backend=backend) as pipe:
        with pytest.raises(kind) as caught:
            pipe(PROMPT, **options)
        assert pipe(PROMPT).frames.shape == (6, 32, 32, 3)  # without the role None means no
    assert caught.value.code == code


def test_chunks_cover_every_frame_once() -> None:
    pixels = np.arange(7, dtype=np.float32)[:, None, None, None] * np.full((1, 2, 3, 3), 0.1)
    found = list(upscale_chunks(larger, pixels.astype(np.float32), chunk=3, whole=True))
    assert [start for start, _ in found] == [0, 3, 6]
    np.testing.assert_array_equal(
        np.concatenate([part for _, part in found]), four_times(pixels.astype(np.float32))
    )


def test_its_probe_has_the_smallest_legal_size() -> None:
    facts = tiny_bundle.facts()
    ((case, inputs),) = probe_cases(UPSCALER, entry(), facts, tokens=24, vocabulary=600)
    assert case == "1x32x64"
    assert inputs["sample"].shape == (1, 3, 32, 64)
    dims = (4, 3, 32, 32)
    ((case, inputs),) = probe_cases(UPSCALER, entry(dims), facts, tokens=24, vocabulary=600)
    assert inputs["sample"].shape == dims
