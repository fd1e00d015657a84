"""Saved clips read back: by hand where the writer is ours, by PyAV and Pillow where it is not."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from hummingbird_runtime.errors import ResourceError, UsageError
from hummingbird_runtime.video import Video
from hummingbird_runtime.writers import SUFFIXES, find_writer
from hummingbird_runtime.writers.y4m import to_yuv

FPS = 8


def clip(frames: int = 5, height: int = 48, width: int = 64) -> Video:
    """A smooth moving ramp, so that lossy codecs have an easy day."""
    y, x = np.mgrid[:height, :width]
    images = [
        np.stack([255 * x / width, 255 * y / height, 40.0 * np.ones_like(x) * i], axis=-1)
        for i in range(frames)
    ]
    pixels = np.stack(images).astype(np.uint8)
    return Video(pixels, FPS, seed=2**64 - 1, prompt="a r\u00e9d ball \U0001f534", bundle_id="b-1")


def noisy(frames: int = 3) -> Video:
    pixels = np.random.default_rng(0).integers(0, 256, (frames, 7, 9, 3), dtype=np.uint8)
    return Video(pixels, 12.5)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.mean((a.astype(float) - b.astype(float)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def test_mp4_plays_back_close_to_the_frames(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    video = clip(26)
    video.save(tmp_path / "clip.mp4")
    with av.open(str(tmp_path / "clip.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == FPS
        assert stream.codec_context.colorspace == 1  # BT.709
        made_from = json.loads(container.metadata["comment"])
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(stream)]
        assert float(stream.duration * stream.time_base) == pytest.approx(26 / FPS)
    assert len(frames) == 26
    assert made_from == {"prompt": video.prompt, "seed": video.seed, "bundle_id": "b-1"}
    # crf 10 with halved chroma on a smooth ramp; colours shifted by a wrong matrix give below 30
    assert psnr(np.stack(frames), video.frames) > 38


def test_mp4_has_its_index_in_front(tmp_path: Path) -> None:
    pytest.importorskip("av")
    clip().save(tmp_path / "clip.mp4")
    data, order, at = (tmp_path / "clip.mp4").read_bytes(), [], 0
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        order.append(kind)
        at += size
    assert order.index(b"moov") < order.index(b"mdat")


def test_mp4_bytes_are_reproducible(tmp_path: Path) -> None:
    pytest.importorskip("av")
    # x264's defaults give this very clip other bytes in nearly every run
    hashes = set()
    for number in range(6):
        clip(26, 64, 64).save(tmp_path / f"{number}.mp4")
        hashes.add(hashlib.sha256((tmp_path / f"{number}.mp4").read_bytes()).hexdigest())
    assert len(hashes) == 1


def test_mp4_refuses_odd_sides(tmp_path: Path) -> None:
    pytest.importorskip("av")
    with pytest.raises(UsageError, match="9x7") as caught:
        noisy().save(tmp_path / "clip.mp4")
    assert caught.value.code == "video.odd_size"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("suffix", "floor"), [(".gif", 25), (".webp", 30)])
def test_animated_images_play_back(tmp_path: Path, suffix: str, floor: float) -> None:
    image = pytest.importorskip("PIL.Image")
    sequence = pytest.importorskip("PIL.ImageSequence")
    video = clip()
    video.save(tmp_path / f"clip{suffix}")
    with image.open(tmp_path / f"clip{suffix}") as file:
        frames, durations = [], []
        for frame in sequence.Iterator(file):
            frames.append(np.asarray(frame.convert("RGB")))
            durations.append(frame.info["duration"])
        assert file.info["loop"] == 0
    assert len(frames) == 5
    assert sum(durations) == pytest.approx(1000 * 5 / FPS, abs=10)
    assert psnr(np.stack(frames), video.frames) > floor


def test_a_single_frame_is_a_clip_in_every_format(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        package = {".mp4": "av", ".gif": "PIL", ".webp": "PIL"}.get(suffix)
        if package is None or importlib.util.find_spec(package):
            clip(1).save(tmp_path / f"clip{suffix}")
            assert (tmp_path / f"clip{suffix}").stat().st_size > 0


def read_apng(data: bytes) -> tuple[np.ndarray, list[bytes], list[bytes]]:
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, kinds, controls, images, width, height = 8, [], [], [], 0, 0
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + size]
        (crc,) = struct.unpack(">I", data[at + 8 + size : at + 12 + size])
        assert crc == zlib.crc32(kind + body)
        kinds.append(kind)
        if kind == b"IHDR":
            width, height = struct.unpack(">II", body[:8])
            assert body[8:] == bytes([8, 2, 0, 0, 0])
        elif kind == b"fcTL":
            controls.append(body)
        elif kind in (b"IDAT", b"fdAT"):
            rows = zlib.decompress(body[4:] if kind == b"fdAT" else body)
            filtered = np.frombuffer(rows, np.uint8).reshape(height, 1 + 3 * width)
            assert (filtered[:, 0] == 2).all()
            pixels = np.cumsum(filtered[:, 1:], axis=0, dtype=np.uint8)
            images.append(pixels.reshape(height, width, 3))
        at += 12 + size
    return np.stack(images), controls, kinds


@pytest.mark.parametrize("video", [clip(), noisy(), clip(1)])
def test_apng_holds_the_exact_frames(tmp_path: Path, video: Video) -> None:
    video.save(tmp_path / "clip.png")
    frames, controls, kinds = read_apng((tmp_path / "clip.png").read_bytes())
    np.testing.assert_array_equal(frames, video.frames)
    count = len(video.frames)
    assert kinds == [b"IHDR", b"acTL", b"fcTL", b"IDAT", *[b"fcTL", b"fdAT"] * (count - 1), b"IEND"]
    sequence = [struct.unpack(">I", control[:4])[0] for control in controls]
    assert sequence == [0, *range(1, 2 * count - 1, 2)]
    for control in controls:
        numerator, denominator = struct.unpack(">HH", control[20:24])
        assert numerator / denominator == pytest.approx(1 / video.fps)


def test_pillow_reads_the_apng(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    video = clip()
    video.save(tmp_path / "clip.png")
    with image.open(tmp_path / "clip.png") as file:
        assert file.n_frames == 5
        for i in range(5):
            file.seek(i)
            np.testing.assert_array_equal(np.asarray(file.convert("RGB")), video.frames[i])


def test_y4m_holds_planes_that_turn_back_into_the_colours(tmp_path: Path) -> None:
    video = noisy()
    video.save(tmp_path / "clip.y4m")
    header, _, rest = (tmp_path / "clip.y4m").read_bytes().partition(b"\n")
    assert header == b"YUV4MPEG2 W9 H7 F25:2 Ip A1:1 C444 XCOLORRANGE=LIMITED"
    size = 6 + 3 * 7 * 9
    assert len(rest) == 3 * size
    for i, image in enumerate(video.frames):
        part = rest[i * size : (i + 1) * size]
        assert part[:6] == b"FRAME\n"
        y, u, v = np.frombuffer(part[6:], np.uint8).reshape(3, 7, 9).astype(float)
        y, u, v = (y - 16) / 219, (u - 128) / 224, (v - 128) / 224
        r, b = y + 1.402 * v, y + 1.772 * u
        g = (y - 0.299 * r - 0.114 * b) / 0.587
        back = np.stack([r, g, b], axis=-1) * 255
        # half a level of each plane: 0.5/219 + 1.772 * 0.5/224 of 255, and less for green
        assert np.abs(back - image).max() <= 1.8


def test_black_white_and_red_have_the_standard_codes() -> None:
    image = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0]]], np.uint8)
    assert to_yuv(image)[:, 0].T.tolist() == [[16, 128, 128], [235, 128, 128], [81, 90, 240]]


def test_av_reads_the_y4m(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    video = clip()
    video.save(tmp_path / "clip.y4m")
    with av.open(str(tmp_path / "clip.y4m")) as container:
        assert container.streams.video[0].average_rate == FPS
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert psnr(np.stack(frames), video.frames) > 45


def test_npz_holds_everything_exactly_and_reproducibly(tmp_path: Path) -> None:
    video = clip()
    video.save(tmp_path / "a.npz")
    video.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz") as data:
        np.testing.assert_array_equal(data["frames"], video.frames)
        assert (float(data["fps"]), int(data["seed"])) == (FPS, 2**64 - 1)
        assert (str(data["prompt"]), str(data["bundle_id"])) == (video.prompt, "b-1")


def test_an_unknown_suffix_lists_the_known_ones(tmp_path: Path) -> None:
    for name in ("clip.xyz", "clip", ".mp4.txt"):
        with pytest.raises(
            UsageError, match=r"\.mp4, \.gif, \.webp, \.png, \.y4m, \.npz"
        ) as caught:
            clip().save(tmp_path / name)
        assert caught.value.code == "output.suffix"
    assert list(tmp_path.iterdir()) == []


def test_suffixes_are_read_without_case(tmp_path: Path) -> None:
    clip().save(tmp_path / "CLIP.NPZ")
    assert find_writer("x.PNG") is find_writer("x.png")


@pytest.mark.parametrize(
    ("suffix", "package", "extra"),
    [(".mp4", "av", "video"), (".gif", "PIL", "image"), (".webp", "PIL", "image")],
)
def test_a_missing_extra_is_named_before_the_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, suffix: str, package: str, extra: str
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == package else real(name, *a)
    )
    with pytest.raises(
        ResourceError, match=rf"pip install 'hummingbird-edge\[{extra}\]'"
    ) as caught:
        find_writer(tmp_path / f"clip{suffix}")
    assert caught.value.code == "extra.missing"


def test_the_runtime_never_imports_a_codec_by_itself() -> None:
    code = (
        "import sys, hummingbird_runtime.pipeline, hummingbird_runtime.writers as w;"
        "[w.find_writer('x' + s) for s in ('.png', '.y4m', '.npz')];"
        "print(sorted({'av', 'PIL', 'onnxruntime', 'torch'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_an_existing_file_is_kept_when_asked(tmp_path: Path) -> None:
    target = tmp_path / "clip.npz"
    target.write_bytes(b"mine")
    with pytest.raises(UsageError) as caught:
        clip().save(target, overwrite=False)
    assert caught.value.code == "output.exists"
    assert target.read_bytes() == b"mine"
    clip().save(target)
    assert target.read_bytes() != b"mine"


def test_a_missing_folder_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ResourceError) as caught:
        clip().save(tmp_path / "missing" / "clip.npz")
    assert caught.value.code == "output.folder_missing"
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "clip.npz"
    target.write_bytes(b"old")

    def broken(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", broken)
    with pytest.raises(ResourceError) as caught:
        clip().save(target)
    assert caught.value.code == "output.disk_full"
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("frames", "fps"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), 8),
        (np.zeros((2, 4, 4), np.uint8), 8),
        (np.zeros((2, 4, 4, 4), np.uint8), 8),
        (np.zeros((0, 4, 4, 3), np.uint8), 8),
        (np.zeros((2, 4, 4, 3), np.uint8), 0),
        (np.zeros((2, 4, 4, 3), np.uint8), float("nan")),
        (np.zeros((2, 4, 4, 3), np.uint8), 1e6),
    ],
)
def test_what_is_no_clip_is_refused(frames: np.ndarray, fps: float) -> None:
    with pytest.raises(UsageError) as caught:
        Video(frames, fps)
    assert caught.value.code == "video.invalid"
