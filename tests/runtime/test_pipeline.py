"""The pipeline with plain functions for graphs: order, determinism, cancel, busy, failures."""

from __future__ import annotations

import dataclasses
import gc
import json
import threading
import warnings
from pathlib import Path

import fake_graphs
import numpy as np
import pytest
import tiny_bundle
from fake_graphs import FakeBackend

from hummingbird_runtime import CancelToken, TextToVideoPipeline, Video
from hummingbird_runtime.errors import (
    Cancelled,
    ExecutionError,
    HummingbirdError,
    InputError,
    IntegrityError,
    ResourceError,
    UsageError,
)
from hummingbird_runtime.events import Done, Frames, Started, Step, Tokens, Warning
from hummingbird_runtime.facts import Guidance
from hummingbird_runtime.noise import noise
from hummingbird_runtime.schedule import SchedulerConfig

PROMPT = "a red ball moving left"


def pipeline(path: Path, **functions) -> TextToVideoPipeline:
    return TextToVideoPipeline.from_pretrained(path, backend=FakeBackend(**functions))


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


NOT_FINITE = {
    "text embedding (text_encoder)": ("text_encoder", np.nan),
    "network output at timestep 759 (unet)": ("unet", np.inf),
    "decoded frames (vae_decoder)": ("vae_decoder", -np.inf),
}


@pytest.mark.parametrize("said", NOT_FINITE)
def test_numbers_that_are_not_finite_name_their_stage(tiny_bundle_path: Path, said: str) -> None:
    role, value = NOT_FINITE[said]
    broken = {"now": True}
    healthy = {
        "text_encoder": fake_graphs.encode,
        "unet": fake_graphs.predict,
        "vae_decoder": fake_graphs.decode,
    }[role]

    def function(feeds: fake_graphs.Feeds) -> np.ndarray:
        output = healthy(feeds)
        if broken["now"] and (role != "unet" or feeds["timestep"] == 759):
            output.flat[5] = value
        return output

    pipe = pipeline(tiny_bundle_path, **{role: function})
    with pytest.raises(ExecutionError) as caught:
        pipe(PROMPT)
    assert caught.value.code == "numeric.non_finite"
    assert str(caught.value).startswith(said)
    broken["now"] = False
    assert pipe(PROMPT).frames.any()


def test_overflow_inside_the_solver_is_caught_with_its_step(tiny_bundle_path: Path) -> None:
    huge = pipeline(tiny_bundle_path, unet=lambda feeds: np.full_like(feeds["sample"], -3e38))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ExecutionError, match="latent after step 1 of 4"):
            huge(PROMPT)


def test_a_decoder_of_another_scale_is_named(tiny_bundle_path: Path) -> None:
    pipe = pipeline(tiny_bundle_path, vae_decoder=lambda feeds: feeds["latent_sample"][:, :3])
    with pytest.raises(
        ExecutionError, match=r"\[4, 4, 4, 3\], expected \[4, 32, 32, 3\]"
    ) as caught:
        pipe(PROMPT)
    assert caught.value.code == "runtime.decoder_shape"


def test_out_of_memory_is_a_resource_error(tiny_bundle_path: Path) -> None:
    def exhausted(feeds: fake_graphs.Feeds) -> np.ndarray:
        raise MemoryError

    with pytest.raises(ResourceError) as caught:
        pipeline(tiny_bundle_path, unet=exhausted)(PROMPT)
    assert caught.value.code == "resource.memory"


def test_cancel_stops_at_every_point_and_the_pipeline_lives_on(tiny_bundle_path: Path) -> None:
    backend = FakeBackend()
    pipe = TextToVideoPipeline.from_pretrained(tiny_bundle_path, backend=backend)
    expected = pipe(PROMPT, seed=1).frames
    kinds = [type(event) for event in pipe.stream(PROMPT)]
    for stop in range(len(kinds) - 2):  # after the last frames nothing is left to cancel
        token, seen = CancelToken(), []

        def cancel_at(stop: int = stop, token: CancelToken = token, seen: list = seen) -> None:
            for event in pipe.stream(PROMPT, cancel=token):
                seen.append(event)
                if len(seen) == stop + 1:
                    token.cancel()

        with pytest.raises(Cancelled):
            cancel_at()
        assert len(seen) <= stop + 2  # at most one more event, which needed no graph
        np.testing.assert_array_equal(pipe(PROMPT, seed=1).frames, expected)


def test_a_cancelled_token_starts_nothing(tiny_bundle_path: Path) -> None:
    backend, token = FakeBackend(), CancelToken()
    pipe = TextToVideoPipeline.from_pretrained(tiny_bundle_path, backend=backend)
    token.cancel()
    with pytest.raises(Cancelled):
        pipe(PROMPT, cancel=token)
    assert not [line for line in backend.log if line.startswith("run")]


def test_closing_the_generator_cancels_and_frees_the_pipeline(pipe: TextToVideoPipeline) -> None:
    events = pipe.stream(PROMPT)
    for event in events:
        if isinstance(event, Step):
            break
    events.close()
    assert pipe(PROMPT).frames.any()
    half_read = pipe.stream(PROMPT)
    next(half_read)
    del half_read
    gc.collect()
    assert pipe(PROMPT).frames.any()


def test_a_second_run_meanwhile_is_told_so(pipe: TextToVideoPipeline) -> None:
    first = pipe.stream(PROMPT, seed=1)
    next(first)
    with pytest.raises(UsageError) as caught:
        pipe(PROMPT)
    assert caught.value.code == "runtime.busy"
    assert isinstance(list(first)[-1], Done)  # the first one is not disturbed


def test_threads_that_share_a_pipeline_get_whole_clips_or_busy(pipe: TextToVideoPipeline) -> None:
    serial = {seed: pipe(PROMPT, seed=seed).frames for seed in range(8)}
    results: dict[int, object] = {}

    def work(seed: int) -> None:
        try:
            results[seed] = pipe(PROMPT, seed=seed).frames
        except HummingbirdError as error:
            results[seed] = error.code

    threads = [threading.Thread(target=work, args=(seed,)) for seed in serial]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    for seed, result in results.items():
        busy = isinstance(result, str) and result == "runtime.busy"
        assert busy or np.array_equal(result, serial[seed])


def test_an_unstarted_stream_holds_nothing(pipe: TextToVideoPipeline) -> None:
    waiting = pipe.stream(PROMPT)
    assert pipe(PROMPT).frames.any()
    assert isinstance(list(waiting)[-1], Done)


def test_arguments_are_checked_before_the_first_event(pipe: TextToVideoPipeline) -> None:
    with pytest.raises(InputError, match="num_frames"):
        pipe.stream(PROMPT, num_frames=0)


def test_a_callback_sees_every_step_and_its_error_passes_through(
    pipe: TextToVideoPipeline,
) -> None:
    seen: list[Step] = []
    pipe(PROMPT, callback_on_step_end=seen.append)
    assert [step.i for step in seen] == [0, 1, 2, 3]

    def broken(step: Step) -> None:
        raise KeyError(step.i)

    with pytest.raises(KeyError):
        pipe(PROMPT, callback_on_step_end=broken)
    assert pipe(PROMPT).frames.any()


def test_a_closed_pipeline_says_so(pipe: TextToVideoPipeline) -> None:
    pipe.close()
    pipe.close()
    with pytest.raises(UsageError) as caught:
        pipe(PROMPT)
    assert caught.value.code == "runtime.closed"


def test_closing_during_a_run_cancels_it(tiny_bundle_path: Path) -> None:
    pipe = pipeline(tiny_bundle_path)
    with pytest.raises(Cancelled):
        pipe(PROMPT, callback_on_step_end=lambda step: pipe.close())


def test_closing_from_another_thread_ends_the_run(tiny_bundle_path: Path) -> None:
    inside, go_on, outcome = threading.Event(), threading.Event(), []

    def slow(feeds: fake_graphs.Feeds) -> np.ndarray:
        inside.set()
        assert go_on.wait(10)
        return fake_graphs.predict(feeds)

    pipe = pipeline(tiny_bundle_path, unet=slow)

    def work() -> None:
        with pytest.raises(HummingbirdError) as caught:
            pipe(PROMPT)
        outcome.append(caught.value.code)

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(10)
    pipe.close()
    go_on.set()
    thread.join(10)
    assert outcome == ["runtime.cancelled"]


def test_real_graphs_give_equal_bytes_in_both_memory_modes(tiny_bundle_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    frames = []
    for low_memory in (False, True):
        with TextToVideoPipeline.from_pretrained(
            tiny_bundle_path, threads=1, low_memory=low_memory
        ) as pipe:
            frames += [pipe(PROMPT, seed=7).frames, pipe(PROMPT, seed=7).frames]
    assert all(np.array_equal(clip, frames[0]) for clip in frames)
    assert frames[0].std() > 0


def test_a_real_run_is_cancelled_and_its_sessions_live_on(tiny_bundle_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    with TextToVideoPipeline.from_pretrained(tiny_bundle_path, threads=1) as pipe:
        token, steps = CancelToken(), []

        def stop_at_the_third(step: Step) -> None:
            steps.append(step.i)
            if step.i == 2:
                token.cancel()

        with pytest.raises(Cancelled):
            pipe(PROMPT, cancel=token, callback_on_step_end=stop_at_the_third)
        assert steps == [0, 1, 2]
        assert pipe(PROMPT).frames.any()
