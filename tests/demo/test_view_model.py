"""The drawing screen's state machine, fed with messages by hand: phases, progress, late ones."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_bundle
from scripted_pipeline import REQUEST

from hummingbird_demo import worker as w
from hummingbird_demo.choices import choices_from
from hummingbird_demo.models import Model
from hummingbird_demo.orders import Interrupted, Order
from hummingbird_demo.progress import Estimator
from hummingbird_demo.view_model import KEEP, Line, Phase, ViewModel
from hummingbird_runtime import Bundle, ResourceError, Video

FRAMES = np.zeros((4, 16, 16, 3), np.uint8)


class Recorder:
    """Stands for the worker and writes down what it is asked."""

    def __init__(self) -> None:
        self.orders: list[Order] = []
        self.said: list[str] = []
        self.errands: dict[str, w.Errand] = {}

    def draw(self, order: Order) -> None:
        self.orders.append(order)

    def do(self, name: str, errand: w.Errand) -> None:
        self.errands[name] = errand

    def __getattr__(self, name: str):
        return lambda *_: self.said.append(name)


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Model:
    folder = tiny_bundle.write(tmp_path_factory.mktemp("bundle") / "tiny")
    choices = choices_from(Bundle.open(folder).manifest)
    return Model("built-in", folder, "tiny", 1000, "CC0-1.0", "", replace(choices, trained=REQUEST))


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def worker() -> Recorder:
    return Recorder()


@pytest.fixture
def screen(worker, model, clock) -> ViewModel:
    screen = ViewModel(worker, library=None, clock=clock)
    screen.use_model(model)
    screen.set_prompt("a red ball")
    return screen


def video(**changes) -> Video:
    values = {"fps": 8, "seed": 5, "timings": {"decode": 2.0}}
    return Video(FRAMES, **{**values, **changes})


def draw_to(screen: ViewModel, *messages: w.Message) -> None:
    for message in messages:
        screen.receive(message)


def test_an_empty_prompt_orders_nothing(screen, worker):
    screen.set_prompt("   ")
    screen.generate()
    assert worker.orders == []
    assert screen.state.phase is Phase.IDLE


def test_a_clip_goes_from_opening_through_generating_to_playing(screen, worker):
    phases = []
    screen.subscribe(lambda state: phases.append(state.phase))
    screen.set_seed("5")
    screen.generate()
    number = worker.orders[0].number
    assert worker.orders[0].prompt == "a red ball"
    assert worker.orders[0].seed == 5
    draw_to(
        screen,
        w.Opening(number),
        w.Begun(number, 1, 100),
        w.StepDone(number, 0, 3, 1.0, FRAMES[:, :2, :2]),
        w.FramesDone(number, 0, FRAMES[:2]),
        w.FramesDone(number, 2, FRAMES[2:]),
        w.Drawn(number, video()),
    )
    assert list(dict.fromkeys(phases)) == [
        Phase.IDLE, Phase.OPENING, Phase.GENERATING, Phase.PLAYING,
    ]  # fmt: skip
    assert screen.state.frames is screen.state.video.frames
    assert screen.state.progress.fraction == 1
    assert KEEP in worker.errands


def test_the_line_under_the_picture_tells_what_is_being_done(screen):
    screen.generate()
    said = []
    screen.subscribe(lambda state: said.append(state.status))
    draw_to(screen, w.Opening(1), w.Begun(1, 1, 100))
    for i in range(3):
        draw_to(screen, w.StepDone(1, i, 3, 1.0, FRAMES))
    draw_to(screen, w.FramesDone(1, 0, FRAMES[:2]))
    lines = [line for status in said for line in status]
    assert lines == [
        *(Line("step", {"i": i, "n": 3}) for i in (1, 2, 3)),
        Line("decoding", {"done": 0, "total": 4}),
        Line("decoding", {"done": 2, "total": 4}),
    ]


def test_one_clip_at_a_time(screen, worker):
    screen.generate()
    screen.generate()
    screen.go_on()
    assert len(worker.orders) == 1


def test_cancel_answers_at_once_and_work_done_meanwhile_changes_nothing(screen, worker):
    screen.generate()
    screen.receive(w.Begun(1, 1, 100))
    screen.cancel()
    assert screen.state.phase is Phase.CANCELLING
    assert worker.said[-1] == "cancel"
    draw_to(screen, w.StepDone(1, 0, 3, 1.0, FRAMES), w.FramesDone(1, 0, FRAMES))
    assert screen.state.phase is Phase.CANCELLING
    screen.receive(w.Ended(1, None))
    assert screen.state.phase is Phase.IDLE
    assert screen.state.error is None


def test_a_clip_that_was_done_before_the_cancel_arrived_is_kept(screen):
    screen.generate()
    screen.receive(w.Begun(1, 1, 100))
    screen.cancel()
    screen.receive(w.Drawn(1, video()))
    assert screen.state.phase is Phase.PLAYING


def test_late_messages_of_an_older_clip_change_nothing(screen):
    screen.generate()
    screen.receive(w.Ended(1, None))
    screen.generate()
    before = screen.state
    draw_to(screen, w.StepDone(1, 0, 3, 1.0, FRAMES), w.Drawn(1, video()), w.Ended(1, None))
    assert screen.state is before


def test_a_failure_shows_its_error_and_can_be_left(screen):
    screen.generate()
    error = ResourceError("resource.memory", "out of memory")
    screen.receive(w.Ended(1, error))
    assert (screen.state.phase, screen.state.error) == (Phase.FAILED, error)
    screen.dismiss()
    assert (screen.state.phase, screen.state.error) == (Phase.IDLE, None)


def test_too_little_memory_offers_smaller_settings_until_there_are_none(screen, worker, model):
    screen.choose(num_frames=model.choices.frames[-1], height=32, width=32)
    screen.generate()
    wanted = [worker.orders[-1].request]
    while True:
        screen.receive(w.Short(worker.orders[-1].number, 900 << 20, 300 << 20))
        assert screen.state.phase is Phase.LOW_MEMORY
        assert (screen.state.needed, screen.state.free) == (900 << 20, 300 << 20)
        before = len(worker.orders)
        screen.smaller()
        if len(worker.orders) == before:
            break
        wanted.append(worker.orders[-1].request)
    sizes = [(r.num_frames, r.height * r.width) for r in wanted]
    assert len(sizes) > 2
    for larger, smaller in itertools.pairwise(sizes):
        assert smaller != larger
        assert smaller[0] <= larger[0]
        assert smaller[1] <= larger[1]


def test_the_runtimes_own_refusal_for_memory_is_a_memory_warning_too(screen):
    screen.generate()
    screen.receive(w.Ended(1, ResourceError("memory.not_enough", "needs 900 MiB")))
    assert screen.state.phase is Phase.LOW_MEMORY


def test_a_tight_clip_is_announced(screen):
    screen.generate()
    screen.receive(w.Begun(1, 90 << 20, 100 << 20))
    assert Line("memory_tight", {"needed": 90, "free": 100}) in screen.state.status


def test_unknown_free_memory_is_no_warning(screen):
    screen.generate()
    screen.receive(w.Begun(1, 90 << 20, None))
    assert [line.key for line in screen.state.status] == ["step"]


@pytest.mark.parametrize("text", ["", "-1", "x", "1.5", "٣", str(1 << 64)])
def test_what_is_no_seed_is_refused(screen, text):
    seed = screen.state.seed
    assert not screen.set_seed(text)
    assert screen.state.seed == seed


def test_the_largest_seed_is_taken(screen):
    assert screen.set_seed(str((1 << 64) - 1))


def test_an_interrupted_run_is_offered_and_gone_on_with(screen, worker):
    found = Interrupted(
        Order(0, "built-in", Path("b"), "a blue ring", 9, REQUEST, goes_on=True), 2, 4
    )
    screen.offer(found)
    assert screen.state.phase is Phase.INTERRUPTED
    screen.go_on()
    order = worker.orders[0]
    assert (order.prompt, order.seed, order.goes_on) == ("a blue ring", 9, True)
    screen.receive(w.Drawn(order.number, video()))
    assert screen.state.phase is Phase.PLAYING


def test_an_interrupted_run_is_not_offered_over_a_clip_under_way(screen):
    screen.generate()
    screen.offer(Interrupted(Order(0, "m", Path("b"), "x", 1, REQUEST), 1, 4))
    assert screen.state.phase is Phase.OPENING


def test_discarding_an_interrupted_run_forgets_it_on_disk(screen, worker):
    screen.offer(Interrupted(Order(0, "m", Path("b"), "x", 1, REQUEST), 1, 4))
    screen.discard_interrupted()
    assert screen.state.phase is Phase.IDLE
    assert worker.said[-1] == "forget_run"


def test_a_memory_warning_closes_an_idle_model_only(screen, worker):
    assert screen.memory_warning()
    assert worker.said[-1] == "release"
    screen.generate()
    assert not screen.memory_warning()


def test_the_time_left_counts_down_between_two_steps(screen, clock):
    screen.generate()
    draw_to(screen, w.Begun(1, 1, 100), w.StepDone(1, 0, 3, 10.0, FRAMES))
    assert screen.state.progress.seconds_left == pytest.approx(20)
    before = screen.state.progress.fraction
    clock.now += 5
    screen.tick()
    assert screen.state.progress.seconds_left == pytest.approx(15)
    assert screen.state.progress.fraction > before
    clock.now += 100
    screen.tick()
    assert screen.state.progress.seconds_left == 0


def test_the_bar_never_falls_even_if_a_step_is_slow(screen, clock):
    screen.generate()
    screen.receive(w.Begun(1, 1, 100))
    fractions = []
    screen.subscribe(lambda state: fractions.append(state.progress.fraction))
    for i, seconds in enumerate((1.0, 5.0, 20.0)):
        clock.now += seconds
        screen.tick()
        screen.receive(w.StepDone(1, i, 3, seconds, FRAMES))
    assert fractions == sorted(fractions)


def test_the_second_clip_of_a_model_knows_how_long_decoding_takes(screen, clock):
    screen.generate()
    draw_to(screen, w.Opening(1), w.Drawn(1, video(timings={"decode": 6.0})))
    screen.generate()
    draw_to(screen, w.Opening(2), w.Begun(2, 1, 100), w.StepDone(2, 0, 3, 1.0, FRAMES))
    assert screen.state.progress.seconds_left == pytest.approx(2 * 1.0 + 6.0)


def test_estimates_agree_with_the_closed_form():
    estimator = Estimator(steps=4, frames=10, decode_s=2.0)
    assert estimator.progress().seconds_left is None
    for _ in range(4):
        estimator.step(1.5)
    assert estimator.progress().fraction == pytest.approx(6 / 8)
    estimator.decoded(5, 1.5)  # slower than last time: 3 s in all
    assert estimator.progress().seconds_left == pytest.approx(1.5)
    estimator.decoded(5, 1.5)
    assert estimator.progress() == type(estimator.progress())(1.0, 0.0)
