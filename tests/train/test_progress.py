"""What a run tells: lines, log.jsonl through kills, the bar, the loss plot."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hummingbird_train.loss_plot import LINE, plot_loss, smoothed, ticks
from hummingbird_train.progress import (
    Meter,
    RunLog,
    StepReport,
    TensorBoardLog,
    TerminalBar,
    duration,
    read_log,
)


def report(step: int, loss: float = 0.5) -> StepReport:
    return StepReport(step, 100, "p", 1e-3, {"loss": loss}, 2.0, (100 - step) / 2.0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_means_begin_anew_after_each_line() -> None:
    meter = Meter(10, 4)
    for loss in (1.0, 3.0):
        meter.add({"loss": loss})
    meter.add({"loss": 5.0, "extra": 7.0})
    first = meter.report(7, "p", 0.1, 0, clear=True)
    assert first.numbers == {"loss": 3.0, "extra": 7.0}
    meter.add({"loss": 8.0})
    assert meter.report(8, "p", 0.1, 0, clear=True).numbers == {"loss": 8.0}
    assert first.seconds_left == pytest.approx(3 / first.steps_per_second)


def test_a_resumed_log_has_each_step_once_and_no_torn_line(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0)
    for step in (10, 20, 30):
        log.add(report(step, loss=step))
    with open(tmp_path / "log.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 40, "lo')  # killed in the middle of a line
    assert [row["step"] for row in read_log(tmp_path)] == [10, 20, 30]
    resumed = RunLog(tmp_path, 20)  # the state on disk was of step 20
    resumed.add(report(30, loss=-1))
    lines = (tmp_path / "log.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [10, 20, 30]
    assert json.loads(lines[-1])["loss"] == -1


def test_lines_that_are_no_rows_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(b'\xff\xfe\n[1]\n{"step": "x"}\n{"step": 3}\n')
    assert read_log(tmp_path) == [{"step": 3}]


def test_a_line_says_pace_and_what_is_left() -> None:
    assert report(40).line() == "p 40/100 loss 0.5000 lr 1.00e-03 2.00 step/s, 30 s left"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (90, "1.5 min"), (7200, "2.0 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_bar_is_for_terminals_only() -> None:
    pipe, terminal = io.StringIO(), Terminal()
    for stream in (pipe, terminal):
        bar = TerminalBar(stream, every=0.0)
        bar(report(50))
        bar.print("a line")
        bar(report(100))
        bar.close()
    assert pipe.getvalue() == "a line\n"
    drawn = terminal.getvalue()
    assert "[############............] p 50/100" in drawn
    assert drawn.index("p 50/100") < drawn.index("\ra line\n") < drawn.index("p 100/100")
    assert drawn.endswith(" \r")


def test_the_curve_falls_where_the_loss_falls(tmp_path: Path) -> None:
    rows = [{"step": n, "phase": "p", "loss": 10.0 ** (-n / 50)} for n in range(1, 101)]
    assert plot_loss(rows, tmp_path / "loss.png")
    pixels = np.asarray(Image.open(tmp_path / "loss.png"))
    found = np.argwhere((pixels == LINE).all(-1))  # (row, column)
    left, right = found[found[:, 1] < 200], found[found[:, 1] > 750]
    assert len(left) > 20
    assert left[:, 0].mean() + 200 < right[:, 0].mean()


def test_values_that_have_no_logarithm_are_left_out(tmp_path: Path) -> None:
    bad = [{"step": n, "phase": "p", "loss": v} for n, v in enumerate((math.nan, -1.0, 0.0, 2.0))]
    assert not plot_loss(bad, tmp_path / "loss.png")
    assert not (tmp_path / "loss.png").exists()
    assert plot_loss([*bad, {"step": 9, "phase": "q", "loss": 2.0}], tmp_path / "loss.png")


def test_smoothing_has_no_bias() -> None:
    assert smoothed([3.0] * 5) == pytest.approx([3.0] * 5)
    assert smoothed([0.0, 1.0], 0.5)[1] == pytest.approx(2 / 3)


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0.9, 60.0) == pytest.approx([1, 2, 5, 10, 20, 50])
    assert all(1.01 < t < 1.02 for t in ticks(1.01, 1.02))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_gets_every_number(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = TensorBoardLog(tmp_path)
    board.add(report(10, loss=0.25))
    board.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(10, 0.25)]
    assert set(events.Tags()["scalars"]) == {"loss", "learning_rate"}
