"""What Android's side of the app asks of the system, against stand-ins for the Java classes."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from hummingbird_runtime import ResourceError, Video, writers
from hummingbird_runtime.writers import mediacodec


class Encoder:
    """The runtime's writer for the device's encoder, which has its own tests."""

    refuse: Exception | None = None

    def write(self, path: Path, video: Video) -> None:
        if self.refuse is not None:
            raise self.refuse
        path.write_bytes(b"mp4 data")


def clip(side: int = 16) -> Video:
    frames = np.random.default_rng(0).integers(0, 256, (5, side, side, 3)).astype(np.uint8)
    return Video(frames, fps=8, prompt="a red ball")


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
    jnius.autoclass = classes.__getitem__
    jnius.__spec__ = ModuleSpec("jnius", None)
    monkeypatch.setattr(writers, "on_android", lambda: True)
    monkeypatch.setattr(mediacodec, "write", encoder.write)
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


def test_a_saved_clip_goes_to_the_media_store_and_can_be_shared(phone, tmp_path):
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
    phone.encoder.refuse = ResourceError("video.no_encoder", "too small", hint="")
    path = phone.write_clip(tmp_path / "shared", "clip", clip())
    assert path.name == "clip.webp"
    assert path.read_bytes()[8:12] == b"WEBP"
    assert [found.name for found in (tmp_path / "shared").iterdir()] == ["clip.webp"]


def test_a_full_disk_is_not_taken_for_a_refusing_encoder(phone, tmp_path):
    phone.encoder.refuse = ResourceError("output.no_space", "full", hint="")
    with pytest.raises(ResourceError):
        phone.write_clip(tmp_path / "shared", "clip", clip())
    assert not list((tmp_path / "shared").iterdir())
