"""H.264 in MP4 through Android's own encoder, ``android.media``: what a phone has instead of PyAV.

BT.709, limited range, as ``mp4`` writes it. The encoder is the device's: other phones write other
bytes. Reached by pyjnius; nothing here runs anywhere else.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hummingbird_runtime.errors import ExecutionError, ResourceError, UsageError
from hummingbird_runtime.java_classes import Java
from hummingbird_runtime.writers.yuv420 import PLANAR, SEMI_PLANAR, frame_bytes

if TYPE_CHECKING:
    from hummingbird_runtime.video import Video

MIME = "video/avc"
BITS_PER_PIXEL = 0.5
"""Of one frame; small clips of flat colours are visually lossless with it."""
LOWEST_BIT_RATE = 1_000_000
"""Bits per second."""
PATIENCE_SECONDS = 20.0
"""How long the encoder may be silent."""

_ENCODE, _CONFIG, _END = 1, 2, 4  # flags of configure and of buffers
_AGAIN, _FORMAT_CHANGED = -1, -2
_WAIT_US = 10_000
_BT709, _LIMITED, _SDR, _MPEG4 = 1, 2, 3, 0


def write(path: Path, video: Video) -> None:
    """Encode the clip.

    Raises:
        UsageError: ``video.odd_size``.
        ResourceError: ``video.no_encoder`` when the device cannot encode this size.
        ExecutionError: ``video.encoder`` when it fails or falls silent.
    """
    height, width = video.frames.shape[1:3]
    if height % 2 or width % 2:
        raise UsageError(
            "video.odd_size",
            f"video of {width}x{height} pixels for .mp4, got an odd side, expected even sides",
            hint="write .png, .webp, .y4m or .npz instead",
        )
    java = Java("android.media.", "android.media is a part of Android 5 and newer")
    try:
        java.call(_encode, java, path, video)
    except (UsageError, ResourceError, ExecutionError):
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise ExecutionError(
            "video.encoder",
            f"video of {width}x{height} pixels for .mp4, the device's encoder said: {text}",
            hint="write .webp or .png instead",
        ) from error


def _encode(java: Java, path: Path, video: Video) -> None:
    height, width = video.frames.shape[1:3]
    codec = java.find("MediaCodec").createEncoderByType(MIME)
    muxer = None
    try:
        kind = _colour_format(codec, width, height)
        codec.configure(_format(java, video, kind), None, None, _ENCODE)
        codec.start()
        layout = codec.getInputFormat()
        stride = _number(layout, "stride", width)
        rows = _number(layout, "slice-height", height)
        muxer = java.find("MediaMuxer")(str(path), _MPEG4)
        drain = _Drain(codec, muxer, java.find("MediaCodec$BufferInfo")())
        for index, image in enumerate(video.frames):
            when = round(1_000_000 * index / video.fps)
            _feed(codec, frame_bytes(image, kind, stride, rows), when, 0, drain)
        _feed(codec, b"", round(1_000_000 * len(video.frames) / video.fps), _END, drain)
        _until(lambda: drain.ended or drain.step())
        codec.stop()
        muxer.stop()
    finally:
        codec.release()
        if muxer is not None:
            muxer.release()


class _Drain:
    """Moves what is encoded into the file."""

    def __init__(self, codec: Any, muxer: Any, info: Any) -> None:
        self._codec, self._muxer, self._info = codec, muxer, info
        self._track: int | None = None
        self.ended = False

    def step(self) -> bool:
        """Take one buffer, if there is one; returns whether it was the last."""
        index = self._codec.dequeueOutputBuffer(self._info, _WAIT_US)
        if index == _FORMAT_CHANGED:
            self._track = self._muxer.addTrack(self._codec.getOutputFormat())
            self._muxer.start()
        if index < 0:
            return False
        if self._info.size > 0 and not self._info.flags & _CONFIG:  # the track has the header
            buffer = self._codec.getOutputBuffer(index)
            self._muxer.writeSampleData(self._track, buffer, self._info)
        self._codec.releaseOutputBuffer(index, False)
        self.ended = bool(self._info.flags & _END)
        return self.ended


def _feed(codec: Any, data: bytes, when: int, flags: int, drain: _Drain) -> None:
    def offered() -> bool:
        index = codec.dequeueInputBuffer(_WAIT_US)
        if index == _AGAIN:
            drain.step()
            return False
        if data:
            buffer = codec.getInputBuffer(index)
            buffer.clear()
            buffer.put(data)
        codec.queueInputBuffer(index, 0, len(data), when, flags)
        return True

    _until(offered)
    drain.step()


def _until(done: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(f"nothing for {PATIENCE_SECONDS:g} seconds")


def _format(java: Java, video: Video, kind: int) -> Any:
    height, width = video.frames.shape[1:3]
    rate = max(LOWEST_BIT_RATE, round(BITS_PER_PIXEL * width * height * video.fps))
    description = java.find("MediaFormat").createVideoFormat(MIME, width, height)
    for key, value in {
        "color-format": kind, "bitrate": rate, "frame-rate": max(1, round(video.fps)),
        "i-frame-interval": 1, "color-standard": _BT709, "color-range": _LIMITED,
        "color-transfer": _SDR,
    }.items():  # fmt: skip
        description.setInteger(key, value)
    return description


def _colour_format(codec: Any, width: int, height: int) -> int:
    """A layout that this device takes and this file can write."""
    able = codec.getCodecInfo().getCapabilitiesForType(MIME)
    offered = [kind for kind in (SEMI_PLANAR, PLANAR) if kind in list(able.colorFormats)]
    if not offered or not able.getVideoCapabilities().isSizeSupported(width, height):
        raise ResourceError(
            "video.no_encoder",
            f"video of {width}x{height} pixels for .mp4, this device's encoder does not take it",
            hint="enlarge the clip, or write .webp or .png",
        )
    return offered[0]


def _number(layout: Any, key: str, least: int) -> int:
    value = int(layout.getInteger(key)) if layout.containsKey(key) else 0
    return max(value, least)
