"""Frames of one entry: H.264 and friends through PyAV, arrays through NumPy, images through Pillow.

A damaged file is a typed error here, whatever the decoder says. Frames come one by one, so that a
long clip never lies in memory as a whole.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.cli.verbs import missing_extra
from hummingbird_runtime.errors import InputError
from hummingbird_train.data.entries import ARRAYS, VIDEOS, Entry

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Media:
    """What a file says of itself."""

    frames: int
    """1 for an image."""
    height: int
    width: int
    fps: float | None
    """None where neither file nor source says."""


def probe(entry: Entry) -> Media:
    """Count and measure an entry without decoding it.

    Raises:
        InputError: ``data.corrupt``.
        ResourceError: ``extra.missing`` for videos without PyAV.
    """
    data = _read(entry)
    if entry.suffix in VIDEOS:
        return _probe_video(entry, data)
    if entry.suffix in ARRAYS:
        count, height, width, _ = _array(entry, data).shape
        return Media(count, height, width, entry.fps)
    with _image(entry, data) as image:
        count = getattr(image, "n_frames", 1)
        duration = image.info.get("duration") if count > 1 else None
        fps = entry.fps or (1000 / duration if duration else None)
        return Media(count, image.height, image.width, fps)


def read_frames(entry: Entry, indices: Sequence[int]) -> Iterator[Picture]:
    """Chosen frames of an entry, in order.

    Args:
        entry: what to open.
        indices: ascending frame numbers; a number may repeat.

    Yields:
        uint8 [H, W, 3], RGB; one for each index.

    Raises:
        InputError: ``data.corrupt``, also when the file ends before the last index.
        ResourceError: ``extra.missing``.
    """
    data = _read(entry)
    if entry.suffix in VIDEOS:
        frames = _decode_video(entry, data)
    elif entry.suffix in ARRAYS:
        frames = iter(_array(entry, data))
    else:
        frames = _decode_image(entry, data)
    wanted, done = list(indices), 0
    for number, frame in enumerate(frames):
        while done < len(wanted) and wanted[done] == number:
            yield frame
            done += 1
        if done == len(wanted):
            return
    if done < len(wanted):
        raise corrupt(entry, f"it ends before frame {wanted[done]}")


def resize_and_crop(frames: Picture, size: tuple[int, int]) -> Picture:
    """Scale so that a frame covers the size, antialiased bicubic, and cut its centre out.

    Args:
        frames: uint8 [n, H, W, 3].
        size: height and width, pixels.

    Returns:
        uint8 [n, height, width, 3]; the same object where nothing changes.
    """
    height, width = size
    if frames.shape[1:3] == (height, width):
        return frames
    import torch

    scale = max(height / frames.shape[1], width / frames.shape[2])
    scaled = tuple(
        max(side, round(old * scale))
        for side, old in zip(size, frames.shape[1:3], strict=True)
    )  # fmt: skip
    pixels = torch.from_numpy(np.array(frames)).permute(0, 3, 1, 2).float()
    if scaled != frames.shape[1:3]:
        pixels = torch.nn.functional.interpolate(pixels, scaled, mode="bicubic", antialias=True)
    top, left = (scaled[0] - height) // 2, (scaled[1] - width) // 2
    cut = pixels[:, :, top : top + height, left : left + width]
    return cut.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def corrupt(entry: Entry, problem: object) -> InputError:
    """The error of an entry that cannot be read."""
    first = next(iter(str(problem).splitlines()), "")
    return InputError(
        "data.corrupt",
        f"clip {entry.key[:120]}: {first[:160]}, expected a readable {entry.suffix} file",
        hint="remove or replace it, or skip what cannot be read",
    )


def _read(entry: Entry) -> bytes:
    try:
        return entry.place.read()
    except OSError as error:
        raise corrupt(entry, error.strerror or error) from error


def _array(entry: Entry, data: bytes) -> Picture:
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise corrupt(entry, error) from error
    array = array[None] if array.ndim == 3 else array
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3 or 0 in array.shape:
        raise corrupt(entry, f"got {array.dtype} {list(array.shape)}, expected uint8 [F, H, W, 3]")
    return array


def _image(entry: Entry, data: bytes) -> Any:
    from PIL import Image

    try:
        return Image.open(io.BytesIO(data))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise corrupt(entry, error) from error


def _decode_image(entry: Entry, data: bytes) -> Iterator[Picture]:
    with _image(entry, data) as image:
        for number in range(getattr(image, "n_frames", 1)):
            try:
                image.seek(number)
                frame = np.asarray(image.convert("RGB"), np.uint8)
            except (OSError, EOFError, ValueError, SyntaxError) as error:
                raise corrupt(entry, error) from error
            yield frame


def _av(entry: Entry) -> Any:
    try:
        import av
    except ModuleNotFoundError as error:
        raise missing_extra(f"clip {entry.key[:120]}", "av", "video") from error
    return av


def _probe_video(entry: Entry, data: bytes) -> Media:
    av = _av(entry)
    try:
        with av.open(io.BytesIO(data)) as container:
            stream = container.streams.video[0]
            rate = stream.average_rate
            size = stream.codec_context.height, stream.codec_context.width
            packets = sum(1 for packet in container.demux(stream) if packet.size)
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise corrupt(entry, error) from error
    if not packets or not min(size):
        raise corrupt(entry, "got no video frames")
    return Media(packets, *size, entry.fps or (float(rate) if rate else None))


def _decode_video(entry: Entry, data: bytes) -> Iterator[Picture]:
    av = _av(entry)
    try:
        with av.open(io.BytesIO(data)) as container:
            for frame in container.decode(container.streams.video[0]):
                yield frame.to_ndarray(format="rgb24")
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise corrupt(entry, error) from error
