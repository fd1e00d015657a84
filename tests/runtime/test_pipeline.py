"""The pipeline with plain functions for graphs: order, determinism, cancel, busy, failures."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import fake_graphs
import numpy as np
import pytest
import tiny_bundle
from fake_graphs import PROMPT, FakeBackend, pipeline

from hummingbird_runtime import TextToVideoPipeline, Video
from hummingbird_runtime.errors import (
    ExecutionError,
    InputError,
    IntegrityError,
    UsageError,
)
from hummingbird_runtime.events import Done, Frames, Started, Step, Tokens, Warning
from hummingbird_runtime.facts import Guidance
from hummingbird_runtime.noise import noise
from hummingbird_runtime.schedule import SchedulerConfig


@pytest.fixture
def pipe(tiny_bundle_path: Path) -> TextToVideoPipeline:
    return pipeline(tiny_bundle_path)


def cfg_bundle(folder: Path) -> tuple[Path, dict]:
    graphs = tiny_bundle.graphs()
    inputs = tuple(t for t in graphs["unet"].inputs if t.name != "timestep_cond")
    graphs["unet"] = dataclasses.replace(graphs["unet"], inputs=inputs)
    guidance = Guidance("cfg", default=3.0, trained=(1.0, 12.0), allowed=(1.0, 20.0))
    facts = tiny_bundle.facts(guidance=guidance, timestep_cond_dim=None)
    return tiny_bundle.write(folder / "cfg", graphs=graphs, model=facts), graphs


def test_a_call_gives_a_video_with_what_it_was_made_from(pipe: TextToVideoPipeline) -> None:
    video = pipe(PROMPT, seed=7)
    assert isinstance(video, Video)
    assert video.frames.shape == (6, 32, 32, 3)
    assert video.frames.dtype == np.uint8
    assert (video.fps, video.seed, video.prompt) == (8, 7, PROMPT)
    assert video.bundle_id == tiny_bundle.BUNDLE_ID
    assert video.warnings == ()
    assert set(video.timings) == {"text", "denoise", "decode", "total"}
    stages = [seconds for stage, seconds in video.timings.items() if stage != "total"]
    assert video.timings["total"] == pytest.approx(sum(stages))


def test_the_stream_tells_the_story_in_order(pipe: TextToVideoPipeline) -> None:
    events = list(pipe.stream("a red cat", seed=1, num_frames=7))
    kinds = [type(event) for event in events]
    assert kinds == [Started, Warning, Tokens, Warning, *[Step] * 4, *[Frames] * 2, Done]
    assert events[0].request.num_frames == 7
    assert [event.code for event in events if isinstance(event, Warning)] == [
        "request.untrained",
        "prompt.unknown_words",
    ]
    assert events[2].unknown == ("cat",)
    assert [(e.i, e.n, e.t) for e in events[4:8]] == [
        (0, 4, 999), (1, 4, 759), (2, 4, 519), (3, 4, 279),
    ]  # fmt: skip
    assert [(e.start, len(e.array)) for e in events[8:10]] == [(0, 4), (4, 3)]
    video = events[-1].video
    np.testing.assert_array_equal(np.concatenate([e.array for e in events[8:10]]), video.frames)
    assert [warning.code for warning in video.warnings] == [
        "request.untrained",
        "prompt.unknown_words",
    ]


def test_graphs_can_be_left_to_load_or_to_the_first_call(tiny_bundle_path: Path) -> None:
    backend = FakeBackend()
    with TextToVideoPipeline.from_pretrained(
        tiny_bundle_path, backend=backend, preload=False
    ) as pipe:
        assert backend.log == []
        pipe.stream(PROMPT)
        assert backend.log == []
        pipe.load()
        opened = ["open text_encoder", "open unet", "open vae_decoder"]
        assert backend.log == opened
        pipe.load()
        assert backend.log == opened
    lazy = FakeBackend()
    with TextToVideoPipeline.from_pretrained(tiny_bundle_path, backend=lazy, preload=False) as pipe:
        pipe(PROMPT)
        assert [line for line in lazy.log if line.startswith("open")] == opened


def test_every_step_has_a_preview(pipe: TextToVideoPipeline) -> None:
    for event in pipe.stream(PROMPT):
        if isinstance(event, Step):
            assert event.preview.shape == (6, 4, 4, 3)
            assert event.preview.dtype == np.uint8


def test_a_cut_prompt_is_a_warning(pipe: TextToVideoPipeline) -> None:
    (warning,) = pipe("a red ball " * 20).warnings
    assert warning.code == "prompt.truncated"
    assert "62 tokens, the model reads 24" in warning.text


def test_the_result_is_the_lcm_formula(pipe: TextToVideoPipeline) -> None:
    """One step by hand: x_0 from stream 0 of the seed, then the decoder."""
    latent = pipe(PROMPT, seed=3, num_inference_steps=1, output_type="latent")
    x = noise(3, 0, 6, 4, 4, 4)
    context = fake_graphs.encode({"input_ids": pipe.tokenizer.encode(PROMPT).ids})
    eps = fake_graphs.predict(
        {"sample": x, "encoder_hidden_states": context, "timestep": np.array(999)}
    )
    alpha = 0.0046600985
    np.testing.assert_allclose(latent, (x - np.sqrt(1 - alpha) * eps) / np.sqrt(alpha), rtol=1e-4)
    video = pipe(PROMPT, seed=3, num_inference_steps=1)
    rgb = np.tanh(latent[0, :3] / 0.5).transpose(1, 2, 3, 0)  # (f, h, w, 3)
    frames = np.floor((rgb + 1) / 2 * 255 + 0.5).repeat(8, 1).repeat(8, 2)
    assert np.abs(video.frames - frames).max() <= 1  # float32 rounding at a level's edge


def test_equal_calls_give_equal_bytes(pipe: TextToVideoPipeline, tiny_bundle_path: Path) -> None:
    first = pipe(PROMPT, seed=5).frames
    pipe("a blue square", seed=6)
    np.testing.assert_array_equal(pipe(PROMPT, seed=5).frames, first)
    np.testing.assert_array_equal(pipeline(tiny_bundle_path)(PROMPT, seed=5).frames, first)
    assert (pipe(PROMPT, seed=6).frames != first).any()


def test_more_frames_start_from_the_same_noise(pipe: TextToVideoPipeline) -> None:
    short = pipe(PROMPT, seed=2, num_frames=3, output_type="latent")
    long = pipe(PROMPT, seed=2, num_frames=6, output_type="latent")
    # the fake network treats every cell alone, so the first frames are equal
    np.testing.assert_array_equal(long[:, :, :3], short)


def test_output_types(pipe: TextToVideoPipeline) -> None:
    unit = pipe(PROMPT, output_type="np")
    assert unit.dtype == np.float32
    assert unit.shape == (6, 32, 32, 3)
    assert unit.min() >= 0.0
    assert unit.max() <= 1.0
    rounded = np.floor(unit * np.float32(255) + np.float32(0.5))
    np.testing.assert_array_equal(rounded, pipe(PROMPT).frames)
    latent = pipe(PROMPT, output_type="latent")
    assert (latent.dtype, latent.shape) == (np.float32, (1, 4, 6, 4, 4))


def test_a_list_of_prompts_counts_seeds_up(pipe: TextToVideoPipeline) -> None:
    videos = pipe([PROMPT, "a blue square"], seed=9)
    assert [video.seed for video in videos] == [9, 10]
    np.testing.assert_array_equal(videos[1].frames, pipe("a blue square", seed=10).frames)
    assert pipe([]) == []
    assert [video.seed for video in pipe((PROMPT, PROMPT))] == [0, 1]


def test_a_list_is_checked_before_its_first_clip_is_drawn(tiny_bundle_path: Path) -> None:
    backend = FakeBackend()
    pipe = TextToVideoPipeline.from_pretrained(tiny_bundle_path, backend=backend)
    with pytest.raises(InputError, match="seed"):
        pipe([PROMPT, PROMPT], seed=2**64 - 1)
    with pytest.raises(UsageError, match="prompt"):
        pipe([PROMPT, 7])
    assert not [line for line in backend.log if line.startswith("run")]


def test_given_latents_and_embeddings_replace_noise_and_encoder(tiny_bundle_path: Path) -> None:
    backend = FakeBackend()
    pipe = TextToVideoPipeline.from_pretrained(tiny_bundle_path, backend=backend)
    expected = pipe(PROMPT, seed=4).frames
    context = fake_graphs.encode({"input_ids": pipe.tokenizer.encode(PROMPT).ids})
    backend.log.clear()
    start = noise(4, 0, 6, 4, 4, 4)
    video = pipe(seed=4, prompt_embeds=context, latents=start)
    np.testing.assert_array_equal(video.frames, expected)
    assert "run text_encoder" not in backend.log
    assert video.prompt == ""
    np.testing.assert_array_equal(start, noise(4, 0, 6, 4, 4, 4))  # not written to


def test_a_single_frame_leaves_given_latents_alone(pipe: TextToVideoPipeline) -> None:
    start = noise(4, 0, 1, 4, 4, 4)
    pipe(PROMPT, num_frames=1, latents=start)
    np.testing.assert_array_equal(start, noise(4, 0, 1, 4, 4, 4))


def test_cfg_runs_two_passes_and_mixes_raw_outputs(tmp_path: Path) -> None:
    path, graphs = cfg_bundle(tmp_path)
    seen: list[float] = []

    def predict(feeds: fake_graphs.Feeds) -> np.ndarray:
        assert "timestep_cond" not in feeds
        seen.append(float(feeds["encoder_hidden_states"].mean()))
        return np.full_like(feeds["sample"], feeds["encoder_hidden_states"].mean())

    backend = FakeBackend(graphs, unet=predict)
    pipe = TextToVideoPipeline.from_pretrained(path, backend=backend)
    latent = pipe(
        PROMPT,
        negative_prompt="blue",
        num_inference_steps=1,
        guidance_scale=5,
        output_type="latent",
    )
    conditional, unconditional = seen
    eps = unconditional + 5 * (conditional - unconditional)
    alpha = 0.0046600985
    x = noise(0, 0, 6, 4, 4, 4)
    np.testing.assert_allclose(latent, (x - np.sqrt(1 - alpha) * eps) / np.sqrt(alpha), rtol=1e-4)

    context = fake_graphs.encode({"input_ids": pipe.tokenizer.encode(PROMPT).ids})
    again = pipe(
        prompt_embeds=context,
        negative_prompt="blue",
        num_inference_steps=1,
        guidance_scale=5,
        output_type="latent",
    )
    np.testing.assert_array_equal(again, latent)


def test_v_prediction_with_ddim_runs_from_a_bundle(tmp_path: Path) -> None:
    config = SchedulerConfig(
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        sampler="ddim",
    )
    files = tiny_bundle.files()
    files["scheduler/scheduler_config.json"] = json.dumps(config.to_json()).encode()
    path = tiny_bundle.write(tmp_path / "v", files)
    steps = [
        e.t for e in pipeline(path).stream(PROMPT, num_inference_steps=4) if isinstance(e, Step)
    ]
    assert steps == [999, 749, 499, 249]


def test_graphs_stay_open_between_calls(tiny_bundle_path: Path) -> None:
    backend = FakeBackend()
    with TextToVideoPipeline.from_pretrained(tiny_bundle_path, backend=backend) as pipe:
        assert backend.log == ["open text_encoder", "open unet", "open vae_decoder"]
        pipe(PROMPT)
        pipe(PROMPT)
    assert backend.log.count("open unet") == 1
    assert sorted(backend.log[-3:]) == ["close text_encoder", "close unet", "close vae_decoder"]


def test_low_memory_holds_one_graph_at_a_time(tiny_bundle_path: Path) -> None:
    backend = FakeBackend()
    pipe = TextToVideoPipeline.from_pretrained(tiny_bundle_path, backend=backend, low_memory=True)
    assert backend.log == []
    frames = pipe(PROMPT, seed=1).frames
    assert [line for line in backend.log if not line.startswith("run")] == [
        "open text_encoder",
        "close text_encoder",
        "open unet",
        "close unet",
        "open vae_decoder",
        "close vae_decoder",
    ]
    np.testing.assert_array_equal(pipeline(tiny_bundle_path)(PROMPT, seed=1).frames, frames)


def test_low_memory_closes_a_graph_that_fails(tiny_bundle_path: Path) -> None:
    backend = FakeBackend(unet=lambda feeds: feeds["sample"] * np.float32(np.nan))
    pipe = TextToVideoPipeline.from_pretrained(tiny_bundle_path, backend=backend, low_memory=True)
    with pytest.raises(ExecutionError):
        pipe(PROMPT)
    assert backend.log[-1] == "close unet"


def test_a_graph_that_does_not_fit_the_manifest_is_refused_and_closed(
    tiny_bundle_path: Path,
) -> None:
    graphs = tiny_bundle.graphs()
    graphs["unet"], graphs["vae_decoder"] = graphs["vae_decoder"], graphs["unet"]
    backend = FakeBackend(graphs)
    with pytest.raises(IntegrityError) as caught:
        TextToVideoPipeline.from_pretrained(tiny_bundle_path, backend=backend)
    assert caught.value.code == "bundle.signature_mismatch"
    assert {"close text_encoder", "close unet"} <= set(backend.log)


def test_graphs_with_narrow_inputs_get_them(tmp_path: Path) -> None:
    graphs = tiny_bundle.graphs()
    for role, graph in graphs.items():
        inputs = tuple(
            dataclasses.replace(t, dtype="int32") if t.dtype == "int64" else t for t in graph.inputs
        )
        graphs[role] = dataclasses.replace(graph, inputs=inputs)
    path = tiny_bundle.write(tmp_path / "narrow", graphs=graphs)
    pipe = TextToVideoPipeline.from_pretrained(path, backend=FakeBackend(graphs))
    assert pipe(PROMPT).frames.any()


@pytest.mark.parametrize(("kept", "together"), [(10**9, True), (1000, False)])
def test_large_bundles_hold_one_graph_at_a_time_unless_told(
    tiny_bundle_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int, together: bool
) -> None:
    monkeypatch.setattr("hummingbird_runtime.graphs.KEPT_TOGETHER", kept)
    for low_memory, held in ((None, together), (False, True), (True, False)):
        backend = FakeBackend()
        with TextToVideoPipeline.from_pretrained(
            tiny_bundle_path, backend=backend, low_memory=low_memory
        ):
            assert (backend.log[:1] == ["open text_encoder"]) == held
