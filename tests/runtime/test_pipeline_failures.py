"""The pipeline when things go wrong: bad numbers, memory, cancel, busy, close; real graphs last."""

from __future__ import annotations

import gc
import threading
import warnings
from pathlib import Path

import fake_graphs
import numpy as np
import pytest
from fake_graphs import PROMPT, FakeBackend, pipeline

from hummingbird_runtime import CancelToken, TextToVideoPipeline
from hummingbird_runtime.errors import (
    Cancelled,
    ExecutionError,
    HummingbirdError,
    InputError,
    ResourceError,
    UsageError,
)
from hummingbird_runtime.events import Done, Step


@pytest.fixture
def pipe(tiny_bundle_path: Path) -> TextToVideoPipeline:
    return pipeline(tiny_bundle_path)


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
