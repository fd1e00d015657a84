"""One decode: the right frames by their time stamps, bounds, typed errors for what is no clip."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from hummingbird_runtime.errors import HummingbirdError, InputError
from hummingbird_train.curation import decode as decoding
from hummingbird_train.curation.clip import Clip, make_clip
from hummingbird_train.curation.decode import Frames, decode, run_stages, score_clip
from hummingbird_train.curation.stage import FramePlan, Scores, SkipRest, Stage
from hummingbird_train.curation.video_file import LIMITS, DecodeLimits, decoded, scan_file

av = pytest.importorskip("av")

COUNT, STEP = 30, 8  # frames; grey levels from one to the next


def _write(
    path: Path,
    *,
    ticks: list[int] | None = None,
    size: tuple[int, int] = (64, 48),
    keys: int = 10,
    sound: bool = False,
) -> Path:
    """A clip whose frame k is grey k * STEP, shown at ticks[k] / 25 s (every tick if None)."""
    ticks = list(range(COUNT)) if ticks is None else ticks
    with av.open(str(path), "w") as container:
        options = {"preset": "ultrafast", "crf": "10", "g": str(keys), "threads": "1"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25)
        if sound:
            _add_sound(container)
        for k, tick in enumerate(ticks):
            grey = np.full((size[1], size[0], 3), k * STEP, np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _add_sound(container) -> None:
    stream = container.add_stream("aac", rate=8000, layout="mono")
    silence = np.zeros((1, 4096), np.float32)
    frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
    frame.sample_rate = 8000
    container.mux(stream.encode(frame))
    container.mux(stream.encode())


def _numbers(frames: Frames, plan: FramePlan) -> list[int]:
    """Which frames these are, by their grey."""
    return np.rint(frames.of(plan).mean(axis=(1, 2, 3)) / STEP).astype(int).tolist()


def test_every_plan_gets_its_frames_of_one_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []
    real = decoding.decoded
    monkeypatch.setattr(decoding, "decoded", lambda *a: (passes.append(a[3]), real(*a))[1])
    plans = [
        FramePlan(),
        FramePlan(fps=5.0, height=24),
        FramePlan(max_frames=3),
        FramePlan(max_frames=6, run=2),
    ]
    frames = decode(make_clip(_write(tmp_path / "a.mp4")), plans)
    assert _numbers(frames, plans[0]) == list(range(COUNT))
    assert _numbers(frames, plans[1]) == [0, 5, 10, 15, 20, 25]
    assert _numbers(frames, plans[2]) == [4, 14, 24]
    assert _numbers(frames, plans[3]) == [4, 5, 14, 15, 24, 25]
    assert frames.pairs(plans[3]).tolist() == [0, 2, 4]
    assert frames.of(plans[1]).shape == (6, 24, 32, 3)
    assert frames.times(plans[1]) == pytest.approx(np.arange(6) / 5, abs=1e-6)
    assert passes == [False]


def test_key_frames_are_decoded_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []
    real = decoding.decoded
    monkeypatch.setattr(decoding, "decoded", lambda *a: (passes.append(a[3]), real(*a))[1])
    plan = FramePlan(key_frames=True)
    frames = decode(make_clip(_write(tmp_path / "a.mp4")), [plan])
    assert _numbers(frames, plan) == [0, 10, 20]
    assert passes == [True]


def test_a_plan_never_enlarges(tmp_path: Path) -> None:
    plan = FramePlan(max_frames=1, height=1000)
    assert decode(make_clip(_write(tmp_path / "a.mp4")), [plan]).of(plan).shape == (1, 48, 64, 3)


def test_what_the_file_says(tmp_path: Path) -> None:
    info = Frames(make_clip(_write(tmp_path / "a.mp4", sound=True))).info
    assert (info.width, info.height, info.frames, info.codec) == (64, 48, COUNT, "h264")
    assert info.fps == pytest.approx(25, abs=1e-6)
    assert info.duration == pytest.approx(COUNT / 25, abs=1e-6)
    assert info.has_audio
    assert not info.variable_fps
    assert info.bit_rate > 0


def test_variable_rate_is_noticed_and_followed(tmp_path: Path) -> None:
    ticks = [0, 1, 2, 3, 10, 20, 21, 22, 23, 40]
    plan = FramePlan(fps=2.5)  # every ten ticks
    frames = decode(make_clip(_write(tmp_path / "a.mp4", ticks=ticks)), [plan])
    assert frames.info.variable_fps
    assert _numbers(frames, plan) == [0, 4, 5, 8, 9]
    assert frames.times(plan) == pytest.approx([0, 0.4, 0.8, 0.92, 1.6], abs=1e-6)


def test_a_span_is_cut_out_by_time(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.mp4")
    plan = FramePlan()
    frames = decode(make_clip(path, start=0.52, end=0.72), [plan])  # frames 13 to 17
    assert _numbers(frames, plan) == [13, 14, 15, 16, 17]
    assert frames.info.frames == 5
    assert frames.info.duration == pytest.approx(0.2, abs=1e-6)
    with pytest.raises(InputError) as caught:
        decode(make_clip(path, start=9.0), [plan])
    assert caught.value.code == "clip.span"


def _broken(tmp_path: Path, kind: str) -> Clip:
    path = tmp_path / "x.mp4"
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("no video at all, only words\n" * 50)
    elif kind == "playlist":
        path.write_text("#EXTM3U\n#EXTINF:1,\n/etc/hostname\n")
    elif kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "sound":
        with av.open(str(path), "w") as container:
            _add_sound(container)
    elif kind == "cut off":
        whole = _write(tmp_path / "whole.mp4").read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "nul":
        return Clip("0", "a\0b.mp4")
    return make_clip(path)


@pytest.mark.parametrize(
    ("kind", "codes"),
    [
        ("empty", {"clip.not_video"}),
        ("text", {"clip.not_video"}),
        ("playlist", {"clip.not_video"}),
        ("folder", {"clip.not_video"}),
        pytest.param(
            "fifo", {"clip.not_video"},
            marks=pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs"),
        ),
        ("sound", {"clip.no_video"}),
        ("cut off", {"clip.not_video", "clip.corrupt"}),
        ("gone", {"clip.missing"}),
        ("nul", {"clip.missing"}),
    ],
)  # fmt: skip
def test_what_is_no_clip_gives_a_typed_error(tmp_path: Path, kind: str, codes: set[str]) -> None:
    with pytest.raises(HummingbirdError) as caught:
        decode(_broken(tmp_path, kind), [FramePlan(max_frames=4)])
    assert caught.value.code in codes


def test_garbled_bytes_give_frames_or_a_typed_error(tmp_path: Path) -> None:
    whole = _write(tmp_path / "whole.mp4", keys=250).read_bytes()
    results = set()
    for seed in range(12):
        rng = np.random.default_rng(seed)
        data = bytearray(whole)
        for place in rng.integers(len(data), size=2 ** (seed % 6)):
            data[place] = int(rng.integers(256))
        path = tmp_path / f"{seed}.mp4"
        path.write_bytes(data)
        try:
            frames = decode(make_clip(path), [FramePlan(), FramePlan(max_frames=2)])
        except HummingbirdError as error:
            results.add(error.code)
        else:
            results.add("frames")
            assert frames.of(FramePlan()).dtype == np.uint8
    assert results <= {"clip.corrupt", "clip.not_video", "clip.no_video", "frames"}


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (DecodeLimits(max_frames=COUNT - 1), "clip.too_long"),
        (DecodeLimits(max_pixels=64 * 48 - 1), "clip.too_large"),
        (DecodeLimits(max_bytes=64 * 48 * 3 * (COUNT - 1)), "clip.too_large"),
        (DecodeLimits(max_seconds=0.0), "clip.timeout"),
    ],
)
def test_limits_hold(tmp_path: Path, limits: DecodeLimits, code: str) -> None:
    with pytest.raises(HummingbirdError) as caught:
        decode(make_clip(_write(tmp_path / "a.mp4")), [FramePlan()], limits=limits)
    assert caught.value.code == code


def test_time_stamps_that_span_days_are_refused(tmp_path: Path) -> None:
    clip = make_clip(_write(tmp_path / "a.mp4", ticks=[0, 1, 2, 25 * 90_000]))
    with pytest.raises(InputError) as caught:
        decode(clip, [FramePlan(fps=8.0)])
    assert caught.value.code == "clip.too_long"
    rest = make_clip(tmp_path / "a.mp4", end=1.0)  # the sound part of it can be had
    assert decode(rest, [FramePlan()]).info.frames == 3


def test_frames_that_do_not_decode_are_left_out_up_to_a_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_clip(_write(tmp_path / "a.mp4"))
    real = decoding.decoded
    lost: set[int] = {7}
    monkeypatch.setattr(
        decoding, "decoded", lambda *a: (row for row in real(*a) if row[0] not in lost)
    )
    plan = FramePlan()
    frames = decode(clip, [plan])
    assert _numbers(frames, plan) == [k for k in range(COUNT) if k != 7]
    assert 6 not in frames.pairs(plan)  # frames 6 and 8 are no neighbours
    lost |= {8, 9, 10}
    with pytest.raises(InputError) as caught:
        decode(clip, [plan])
    assert caught.value.code == "clip.corrupt"


TWO = FramePlan(max_frames=2)


@dataclass(frozen=True)
class _Counted(Stage):
    """Counts its frames, or does what its name says."""

    name: str
    needs: FramePlan = TWO
    after: tuple[str, ...] = ()
    version: ClassVar[int] = 1

    def score(self, clip: Clip, frames: Frames, earlier: Mapping[str, Scores]) -> Scores:
        if self.name == "rejects":
            raise SkipRest("dull", {"seen": 1})
        if self.name == "breaks":
            raise ZeroDivisionError("surprise")
        if self.name == "nan":
            return {"value": float("nan")}
        return {"count": len(frames.of(self.needs)), "read": len(earlier)}


def test_outcomes_of_good_failing_and_dependent_stages(tmp_path: Path) -> None:
    clip = make_clip(_write(tmp_path / "a.mp4"))
    stages = [
        _Counted("first"), _Counted("breaks"), _Counted("nan"),
        _Counted("needs breaks", after=("breaks",)), _Counted("second", after=("first", "old")),
    ]  # fmt: skip
    outcomes = {o.stage: o for o in run_stages(clip, stages, {"old": {"x": 1}})}
    assert {name: o.status for name, o in outcomes.items()} == {
        "first": "ok", "breaks": "failed", "nan": "failed",
        "needs breaks": "skipped", "second": "ok",
    }  # fmt: skip
    assert outcomes["second"].scores == {"count": 2, "read": 2}
    assert outcomes["breaks"].error_code == "stage.failed"
    assert "ZeroDivisionError" in outcomes["breaks"].error
    assert outcomes["nan"].error_code == "stage.not_finite"
    assert outcomes["needs breaks"].error_code == "stage.unscored"
    assert outcomes["first"].decode_seconds > 0
    assert outcomes["second"].decode_seconds < outcomes["first"].decode_seconds
    with pytest.raises(ZeroDivisionError):
        score_clip(clip, stages[:2])


def test_a_cheap_reject_spares_the_full_decode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []
    real = decoding.decoded
    monkeypatch.setattr(decoding, "decoded", lambda *a: (passes.append(a[3]), real(*a))[1])
    clip = make_clip(_write(tmp_path / "a.mp4"))
    stages = [_Counted("dear"), _Counted("rejects", FramePlan(key_frames=True))]
    outcomes = list(run_stages(clip, stages))
    assert [(o.stage, o.status, o.error_code) for o in outcomes] == [
        ("rejects", "ok", ""),
        ("dear", "skipped", "clip.rejected"),
    ]
    assert outcomes[0].scores == {"seen": 1}
    assert outcomes[1].error == "rejects: dull"
    assert passes == [True]


def test_a_file_that_does_not_decode_fails_every_stage_and_is_tried_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    real = decoding.scan_file
    monkeypatch.setattr(decoding, "scan_file", lambda *a: (tried.append(1), real(*a))[1])
    stages = [_Counted("a"), _Counted("b"), _Counted("c", FramePlan(key_frames=True))]
    outcomes = list(run_stages(_broken(tmp_path, "text"), stages))
    assert [o.error_code for o in outcomes] == ["clip.not_video"] * 3
    assert len(tried) == 1


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts", "flv", "nut", "h264"])
@pytest.mark.parametrize("span", [(0.0, None), (0.5, 1.1)])
def test_passes_over_one_open_file_see_what_a_fresh_one_shows(
    tmp_path: Path, suffix: str, span: tuple[float, float | None]
) -> None:
    clip = make_clip(_write(tmp_path / f"a.{suffix}", keys=8), start=span[0], end=span[1])
    keys, every = FramePlan(key_frames=True), FramePlan()
    frames = Frames(clip)
    with closing(frames):
        frames.load([keys])
        frames.load([every])
        seen = frames.of(every)
    scan = scan_file(clip, LIMITS)
    fresh = dict(decoded(clip, scan, scan.span.tolist(), False, np.inf))
    assert list(fresh) == scan.span.tolist()
    assert np.array_equal(seen, [p.to_ndarray(format="rgb24") for p in fresh.values()])
    assert frames.of(keys).shape[0] == scan.keys[scan.span].sum()
