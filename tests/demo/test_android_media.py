"""What Android's side of the app asks of the system, against stand-ins for the Java classes."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hummingbird_demo.android_mp4 import nv12, write_mp4
from hummingbird_runtime import ExecutionError, Video


def planes(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    height, width, _ = image.shape
    data = np.frombuffer(nv12(image), np.uint8)
    luma = data[: height * width].reshape(height, width)
    return luma, data[height * width :].reshape(height // 2, width // 2, 2)


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [  # BT.709, limited range: ITU-R BT.709-6, table 3.5, 8 bits
        ((0, 0, 0), (16, 128, 128)),
        ((255, 255, 255), (235, 128, 128)),
        ((255, 0, 0), (63, 102, 240)),
        ((0, 255, 0), (173, 42, 26)),
        ((0, 0, 255), (32, 240, 118)),
    ],
)
def test_primaries_become_the_codes_of_the_standard(rgb, expected):
    image = np.broadcast_to(np.array(rgb, np.uint8), (4, 6, 3))
    luma, chroma = planes(image)
    assert np.abs(luma.astype(int) - expected[0]).max() <= 1
    assert np.abs(chroma.astype(int) - expected[1:]).max() <= 1


def test_luma_keeps_every_pixel_and_chroma_the_mean_of_four():
    image = np.zeros((2, 4, 3), np.uint8)
    image[0, 1] = 255
    luma, chroma = planes(image)
    assert luma[0].tolist() == [16, 235, 16, 16]
    assert chroma.shape == (1, 2, 2)


class Encoder:
    """A codec that gives each frame back after one empty answer, and writes down what it got."""

    def __init__(self, *, stuck: bool = False, refuse: bool = False) -> None:
        self.stuck, self.refuse = stuck, refuse
        self.frames: list[tuple[bytes, int]] = []
        self.waiting: list[tuple[int, int, int]] = []
        self.written: list[tuple[int, int]] = []
        self.calls: list[str] = []
        self.format: dict[str, int] = {}
        self.told_format = False
        self._data = b""

    def java(self, name: str) -> Any:
        return {
            "android.media.MediaFormat": SimpleNamespace(createVideoFormat=self._new_format),
            "android.media.MediaCodec": SimpleNamespace(createEncoderByType=lambda _: self),
            "android.media.MediaMuxer": lambda path, kind: SimpleNamespace(
                addTrack=lambda form: 3,
                start=lambda: self.calls.append("muxer start"),
                stop=lambda: self.calls.append("muxer stop"),
                release=lambda: self.calls.append("muxer release"),
                writeSampleData=lambda track, data, info: self.written.append(
                    (track, info.presentationTimeUs)
                ),
            ),
            "android.media.MediaCodec$BufferInfo": lambda: SimpleNamespace(
                size=0, flags=0, presentationTimeUs=0
            ),
        }[name]

    def _new_format(self, mime: str, width: int, height: int) -> Any:
        self.format = {"width": width, "height": height}
        return SimpleNamespace(setInteger=self.format.__setitem__)

    def configure(self, wanted: Any, surface: None, crypto: None, flags: int) -> None:
        if self.refuse:
            raise RuntimeError("android.media.MediaCodec$CodecException: Error 0xfffffc0e")
        assert flags == 1

    def start(self) -> None:
        self.calls.append("start")

    def stop(self) -> None:
        self.calls.append("stop")

    def release(self) -> None:
        self.calls.append("release")

    def dequeueInputBuffer(self, wait: int) -> int:
        return -1 if self.stuck else 0

    def getInputBuffer(self, place: int) -> Any:
        return SimpleNamespace(put=lambda data: setattr(self, "_data", bytes(data)))

    def queueInputBuffer(self, place: int, start: int, size: int, time: int, flags: int):
        if size:
            self.frames.append((self._data, time))
        self.waiting.append((size, time, flags))

    def dequeueOutputBuffer(self, info: Any, wait: int) -> int:
        if not self.waiting:
            return -1
        if not self.told_format:
            self.told_format = True
            return -2
        info.size, info.presentationTimeUs, info.flags = self.waiting.pop(0)
        return 0

    def getOutputFormat(self) -> str:
        return "format"

    def getOutputBuffer(self, place: int) -> bytes:
        return b""

    def releaseOutputBuffer(self, place: int, render: bool) -> None:
        assert render is False


def clip(side: int = 16) -> Video:
    frames = np.random.default_rng(0).integers(0, 256, (5, side, side, 3)).astype(np.uint8)
    return Video(frames, fps=8, prompt="a red ball")


def test_every_frame_goes_in_once_in_order_and_comes_out_at_its_time(tmp_path):
    encoder, video = Encoder(), clip()
    write_mp4(tmp_path / "x.mp4", video, encoder.java)
    assert [data for data, _ in encoder.frames] == [nv12(image) for image in video.frames]
    assert [time for _, time in encoder.frames] == [i * 125_000 for i in range(5)]
    assert encoder.written == [(3, i * 125_000) for i in range(5)]
    assert encoder.calls == [
        "start", "muxer start", "muxer stop", "stop", "muxer release", "release",
    ]  # fmt: skip
    assert (encoder.format["width"], encoder.format["color-standard"]) == (16, 1)


@pytest.mark.parametrize("how", ["stuck", "refuse"])
def test_an_encoder_that_is_stuck_or_refuses_is_a_typed_error_and_released(tmp_path, how):
    encoder = Encoder(**{how: True})
    with pytest.raises(ExecutionError) as caught:
        write_mp4(tmp_path / "x.mp4", clip(), encoder.java)
    assert caught.value.code == "demo.encoder"
    assert encoder.calls[-1] == "release"


@pytest.fixture
def phone(tmp_path, monkeypatch):
    """``AndroidDevice`` on stand-ins; ``phone.encoder`` and ``phone.store`` tell what it did."""
    encoder, store = Encoder(), {}

    class Values(dict):
        def put(self, name, value):
            self[name] = value

    def insert(table, values):
        store.update(values, table=table)
        return "uri"

    resolver = SimpleNamespace(
        insert=insert,
        openOutputStream=lambda uri: SimpleNamespace(
            write=lambda data: store.update(data=data), close=lambda: None
        ),
    )
    folder = SimpleNamespace(getAbsolutePath=lambda: str(tmp_path / "shared"))
    configuration = SimpleNamespace(uiMode=0x21)
    activity = SimpleNamespace(
        getContentResolver=lambda: resolver,
        getExternalFilesDir=lambda _: folder,
        getResources=lambda: SimpleNamespace(getConfiguration=lambda: configuration),
        startActivity=lambda intent: store.update(shared=intent),
    )

    class Intent(dict):
        ACTION_SEND, EXTRA_STREAM, FLAG_GRANT_READ_URI_PERMISSION = "send", "stream", 1

        def __init__(self, action):
            super().__init__(action=action)

        def setType(self, kind):
            self["type"] = kind

        def putExtra(self, name, value):
            self[name] = value

        def addFlags(self, flags):
            self["flags"] = flags

        @staticmethod
        def createChooser(intent, title):
            return intent

    tag = SimpleNamespace(toLanguageTag=lambda: "zh-Hans-CN")
    classes = {
        "org.kivy.android.PythonActivity": SimpleNamespace(mActivity=activity),
        "android.os.Build": SimpleNamespace(MANUFACTURER="Maker", MODEL="One"),
        "android.os.Build$VERSION": SimpleNamespace(SDK_INT=34),
        "android.content.ContentValues": Values,
        "android.content.Intent": Intent,
        "android.provider.MediaStore$Video$Media": SimpleNamespace(EXTERNAL_CONTENT_URI="video"),
        "android.provider.MediaStore$Images$Media": SimpleNamespace(EXTERNAL_CONTENT_URI="image"),
        "java.util.Locale": SimpleNamespace(getDefault=lambda: tag),
    }
    jnius = ModuleType("jnius")
    jnius.autoclass = lambda name: classes.get(name) or encoder.java(name)
    monkeypatch.setitem(sys.modules, "jnius", jnius)
    monkeypatch.setenv("ANDROID_PRIVATE", str(tmp_path / "private"))
    monkeypatch.setenv("ANDROID_ARGUMENT", "")
    monkeypatch.setenv("HUMMINGBIRD_DEVICE_NAME", "")
    monkeypatch.delenv("HUMMINGBIRD_DEVICE_NAME")
    (tmp_path / "shared").mkdir()
    from hummingbird_demo.device import this_device

    device = this_device()
    device.encoder, device.store = encoder, store
    return device


def test_the_phone_tells_its_folders_language_and_colours(phone, tmp_path):
    assert phone.kind == "phone"
    assert phone.data_folder() == tmp_path / "private" / "hummingbird"
    assert phone.language() == "zh-Hans-CN"
    assert phone.dark() is True


def test_a_saved_clip_goes_to_the_media_store_and_can_be_shared(phone, tmp_path, monkeypatch):
    original = phone.write_clip

    def write(folder: Path, name: str, video: Video) -> Path:
        path = original(folder, name, video)
        path.write_bytes(b"mp4 data")  # the stand-in's muxer writes none
        return path

    monkeypatch.setattr(phone, "write_clip", write)
    from hummingbird_demo.sharing import save_copy

    shown = save_copy(clip(), phone, enlarge=True)
    assert shown.parent == Path("Movies", "Hummingbird")
    assert shown.suffix == ".mp4"
    assert phone.store["table"] == "video"
    assert phone.store["data"] == b"mp4 data"
    assert list((tmp_path / "shared").iterdir()) == []
    assert phone.share(shown)
    assert phone.store["shared"]["stream"] == "uri"
    assert phone.store["shared"]["type"] == "video/mp4"


def test_a_refusing_encoder_gives_a_webp(phone, tmp_path):
    pytest.importorskip("PIL")
    phone.encoder.refuse = True
    path = phone.write_clip(tmp_path / "shared", "clip", clip())
    assert path.name == "clip.webp"
    assert path.read_bytes()[8:12] == b"WEBP"
    assert [found.name for found in (tmp_path / "shared").iterdir()] == ["clip.webp"]
