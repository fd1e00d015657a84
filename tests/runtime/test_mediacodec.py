"""The Android writer against a stand-in for ``android.media``, and its colours in closed form.

What cannot be shown here: that a phone's encoder takes these calls. See docs/android.md.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hummingbird_runtime.errors import ExecutionError, HummingbirdError, ResourceError
from hummingbird_runtime.video import Video
from hummingbird_runtime.writers import find_writer, mediacodec
from hummingbird_runtime.writers.yuv420 import PLANAR, SEMI_PLANAR, frame_bytes, planes


class JavaException(Exception):
    pass


class Values:
    """A MediaFormat."""

    def __init__(self, **values: int) -> None:
        self.values = {key.replace("_", "-"): value for key, value in values.items()}

    def setInteger(self, key: str, value: int) -> None:
        assert type(value) is int
        self.values[key] = value

    def getInteger(self, key: str) -> int:
        return self.values[key]

    def containsKey(self, key: str) -> bool:
        return key in self.values


class Info:
    size = flags = presentationTimeUs = 0


class Phone:
    """An encoder with two input buffers that gives its frames out late, and a muxer."""

    def __init__(self, kinds: list[int], layout: Values, **faults: Any) -> None:
        self.kinds, self.layout, self.faults = kinds, layout, faults
        self.calls: list[str] = []
        self.frames: list[bytes] = []
        self.times: list[int] = []
        self.waiting: list[tuple[int, int, bytes]] = []
        self.told_format = self.started = False
        self.free, self.samples, self.content = [0, 1], [], b""
        self.polls = 0

    # MediaCodec
    def createEncoderByType(self, mime: str) -> Phone:
        assert mime == "video/avc"
        return self

    def getCodecInfo(self) -> Phone:
        return self

    def getCapabilitiesForType(self, mime: str) -> Any:
        sizes = types.SimpleNamespace(isSizeSupported=lambda w, h: w >= self.faults.get("least", 2))
        return types.SimpleNamespace(colorFormats=self.kinds, getVideoCapabilities=lambda: sizes)

    def configure(self, description: Values, surface: None, crypto: None, flags: int) -> None:
        assert (surface, crypto, flags) == (None, None, 1)
        self.asked = description.values

    def start(self) -> None:
        self.started = True

    def getInputFormat(self) -> Values:
        return self.layout

    def dequeueInputBuffer(self, timeout: int) -> int:
        self.polls += 1
        if self.faults.get("silent") or self.polls % 3 == 0 or not self.free:
            return -1
        return self.free.pop()

    def getInputBuffer(self, index: int) -> Phone:
        return self

    def clear(self) -> None:
        self.content = b""

    def put(self, data: bytes) -> None:
        self.content += data

    def queueInputBuffer(self, index: int, offset: int, size: int, when: int, flags: int) -> None:
        if self.faults.get("breaks") == len(self.frames):
            raise JavaException("android.media.MediaCodec$CodecException: \n Error 0xfffffff4")
        if flags & 4:
            assert size == 0
            self.waiting.append((when, 4, b""))
        else:
            assert size == len(self.content)
            self.frames.append(self.content)
            self.times.append(when)
            self.waiting.append((when, 0, b"%d" % len(self.frames)))
        self.free.append(index)

    def dequeueOutputBuffer(self, info: Info, timeout: int) -> int:
        if not self.told_format and self.waiting:
            self.told_format = True
            self.waiting.insert(0, (0, 2, b"header"))
            return -2
        last = bool(self.waiting) and bool(self.waiting[-1][1] & 4)
        if not self.waiting or (len(self.waiting) < 3 and not last):
            return -1
        info.presentationTimeUs, info.flags, self.buffer = self.waiting.pop(0)
        info.size = len(self.buffer)
        return 0

    def getOutputFormat(self) -> str:
        return "the track"

    def getOutputBuffer(self, index: int) -> bytes:
        return self.buffer

    def releaseOutputBuffer(self, index: int, render: bool) -> None:
        assert render is False

    def stop(self) -> None:
        self.calls.append("stop")

    def release(self) -> None:
        self.calls.append("release")


class Muxer:
    def __init__(self, phone: Phone, path: str, kind: int) -> None:
        assert kind == 0
        self.phone, self.path, self.running = phone, Path(path), False

    def addTrack(self, track: str) -> int:
        assert track == "the track"
        assert not self.running
        return 0

    def start(self) -> None:
        self.running = True

    def writeSampleData(self, track: int, buffer: bytes, info: Info) -> None:
        assert self.running
        self.phone.samples.append((info.presentationTimeUs, buffer))

    def stop(self) -> None:
        self.path.write_bytes(b"".join(data for _, data in self.phone.samples))
        self.phone.calls.append("muxer stop")

    def release(self) -> None:
        self.phone.calls.append("muxer release")


def on_a(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> Phone:
    media = {
        "MediaCodec": phone,
        "MediaCodec$BufferInfo": Info,
        "MediaMuxer": lambda path, kind: Muxer(phone, path, kind),
        "MediaFormat": types.SimpleNamespace(
            createVideoFormat=lambda mime, w, h: Values(width=w, height=h)
        ),
    }
    module = types.ModuleType("jnius")
    module.__spec__ = types.SimpleNamespace(name="jnius")
    module.JavaException = JavaException
    module.autoclass = lambda path: media[path.removeprefix("android.media.")]
    module.cast = None
    monkeypatch.setitem(sys.modules, "jnius", module)
    monkeypatch.setattr(sys, "platform", "android")
    return phone


def clip(frames: int = 5, height: int = 16, width: int = 24) -> Video:
    pixels = np.random.default_rng(0).integers(0, 256, (frames, 4, 6, 3), dtype=np.uint8)
    pixels = pixels.repeat(height // 4, axis=1).repeat(width // 6, axis=2)
    return Video(pixels, fps=8)


def pictures(data: bytes, kind: int, stride: int, rows: int, size: tuple[int, int]) -> np.ndarray:
    """The frame that a decoder would show: RGB, float."""
    height, width = size
    raw = np.frombuffer(data, np.uint8).astype(float)
    luma = raw[: rows * stride].reshape(rows, stride)[:height, :width]
    rest = raw[rows * stride :]
    if kind == SEMI_PLANAR:
        pairs = rest.reshape(rows // 2, stride)[: height // 2, :width]
        chroma = pairs.reshape(height // 2, width // 2, 2)
    else:
        halves = rest.reshape(2, rows // 2, stride // 2)[:, : height // 2, : width // 2]
        chroma = halves.transpose(1, 2, 0)
    cb, cr = ((chroma - 128) / 224).repeat(2, axis=0).repeat(2, axis=1).transpose(2, 0, 1)
    y = (luma - 16) / 219
    red, blue = y + 1.5748 * cr, y + 1.8556 * cb
    return np.stack([red, (y - 0.2126 * red - 0.0722 * blue) / 0.7152, blue], axis=-1) * 255


@pytest.mark.parametrize("kinds", [[SEMI_PLANAR, PLANAR, 2135033992], [PLANAR]])
@pytest.mark.parametrize("layout", [Values(), Values(stride=32, slice_height=18)])
def test_every_frame_reaches_the_encoder_and_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kinds: list[int], layout: Values
) -> None:
    phone, video = on_a(Phone(kinds, layout), monkeypatch), clip()
    video.save(tmp_path / "clip.mp4")
    stride, rows = layout.values.get("stride", 24), layout.values.get("slice-height", 16)
    for data, image in zip(phone.frames, video.frames, strict=True):
        shown = pictures(data, kinds[0], stride, rows, (16, 24))
        # three roundings to 8 bits, in video range: at most 0.5 (1 + 1.8556) 255 / 219 and green
        assert np.abs(shown - image).max() < 3
    assert phone.times == [0, 125_000, 250_000, 375_000, 500_000]
    assert [time for time, _ in phone.samples] == phone.times  # and no header among them
    assert (tmp_path / "clip.mp4").read_bytes() == b"12345"
    assert phone.calls == ["stop", "muxer stop", "release", "muxer release"]
    assert phone.asked["color-format"] == kinds[0]
    assert (phone.asked["width"], phone.asked["height"], phone.asked["frame-rate"]) == (24, 16, 8)
    assert (phone.asked["color-standard"], phone.asked["color-range"]) == (1, 2)


def failure(tmp_path: Path, video: Video) -> HummingbirdError:
    with pytest.raises(HummingbirdError) as caught:
        video.save(tmp_path / "clip.mp4")
    assert list(tmp_path.iterdir()) == []
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_broken_encoder_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone = on_a(Phone([SEMI_PLANAR], Values(), breaks=2), monkeypatch)
    error = failure(tmp_path, clip())
    assert (error.code, type(error)) == ("video.encoder", ExecutionError)
    assert "0xfffffff4" in str(error)
    assert phone.calls == ["release", "muxer release"]


def test_a_silent_encoder_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mediacodec, "PATIENCE_SECONDS", 0.05)
    on_a(Phone([SEMI_PLANAR], Values(), silent=True), monkeypatch)
    assert failure(tmp_path, clip()).code == "video.encoder"


@pytest.mark.parametrize("phone", [Phone([2130708361], Values()), Phone([19], Values(), least=96)])
def test_what_the_device_cannot_encode_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phone: Phone
) -> None:
    on_a(phone, monkeypatch)
    error = failure(tmp_path, clip())
    assert (error.code, type(error)) == ("video.no_encoder", ResourceError)
    assert phone.calls == ["release"]


def test_odd_sides_are_refused_as_on_a_desktop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a(Phone([SEMI_PLANAR], Values()), monkeypatch)
    assert failure(tmp_path, Video(np.zeros((1, 3, 4, 3), np.uint8), 8)).code == "video.odd_size"


def test_without_pyjnius_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "android")
    monkeypatch.setitem(sys.modules, "jnius", None)
    with pytest.raises(ResourceError, match="jnius") as caught:
        find_writer("clip.mp4")
    assert caught.value.code == "extra.missing"


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        ((0, 0, 0), (16, 128, 128)),
        ((255, 255, 255), (235, 128, 128)),
        ((255, 0, 0), (63, 102, 240)),
        ((0, 255, 0), (173, 42, 26)),
        ((0, 0, 255), (32, 240, 118)),
    ],
)
def test_colours_have_the_values_of_bt_709(colour: tuple, expected: tuple) -> None:
    luma, chroma = planes(np.full((2, 2, 3), colour, np.uint8))
    assert (luma == expected[0]).all()
    assert chroma[0, 0].tolist() == list(expected[1:])


def test_padding_between_rows_is_black(tmp_path: Path) -> None:
    white = np.full((2, 2, 3), 255, np.uint8)
    assert frame_bytes(white, SEMI_PLANAR, 4, 4) == (
        bytes([235, 235, 0, 0] * 2 + [0] * 8) + bytes([128] * 8)
    )
    assert frame_bytes(white, PLANAR, 4, 2) == bytes([235, 235, 0, 0] * 2) + bytes([128] * 4)
