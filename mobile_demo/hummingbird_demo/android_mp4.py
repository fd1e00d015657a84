"""H.264 in MP4 by Android's own encoder (MediaCodec, MediaMuxer), through pyjnius.

The colour conversion is NumPy and tested; the calls are tested against a stand-in for the Java
classes, and have not been run on a device.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime import ExecutionError, Video

_MIME = "video/avc"
_NV12 = 21
"""COLOR_FormatYUV420SemiPlanar."""
_ENCODE, _MP4 = 1, 0
_CONFIG, _END = 2, 4
_FORMAT_CHANGED = -2
_WAIT_US = 10_000
_PATIENCE = 500
"""Waits of ``_WAIT_US`` without a new frame until the encoder counts as stuck."""
_BITS_PER_PIXEL = 0.5


def nv12(image: NDArray[np.uint8]) -> bytes:
    """One frame, uint8 [H, W, 3] with even sides, as NV12: BT.709, limited range.

    A plane of H x W luma bytes, then H/2 x W/2 pairs (Cb, Cr), each the mean of four pixels.
    """
    rgb = image.astype(np.float32) / 255
    luma = rgb @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    small = rgb.reshape(rgb.shape[0] // 2, 2, rgb.shape[1] // 2, 2, 3).mean((1, 3))
    grey = small @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    chroma = np.stack(
        [(small[..., 2] - grey) / 1.8556, (small[..., 0] - grey) / 1.5748], axis=-1
    )  # (h / 2, w / 2, 2)
    planes = (16 + 219 * luma, 128 + 224 * chroma)
    return b"".join((plane + 0.5).astype(np.uint8).tobytes() for plane in planes)


def write_mp4(path: Path, video: Video, java: Any) -> None:
    """Encode a clip.

    Args:
        path: the file.
        video: even sides.
        java: pyjnius' ``autoclass``: the class with a Java name.

    Raises:
        ExecutionError: ``demo.encoder`` when the device cannot encode this size, or is stuck.
    """
    height, width = video.frames.shape[1:3]
    if height % 2 or width % 2:
        raise _failed(f"{width}x{height}: an odd side")
    codec: Any = None
    muxer: Any = None
    try:
        wanted = java("android.media.MediaFormat").createVideoFormat(_MIME, width, height)
        for key, value in {
            "color-format": _NV12,
            "bitrate": max(int(height * width * video.fps * _BITS_PER_PIXEL), 1_000_000),
            "frame-rate": max(round(video.fps), 1),
            "i-frame-interval": 1,
            "color-standard": 1,  # BT.709
            "color-range": 2,  # limited
            "color-transfer": 3,  # SDR
        }.items():
            wanted.setInteger(key, value)
        codec = java("android.media.MediaCodec").createEncoderByType(_MIME)
        codec.configure(wanted, None, None, _ENCODE)
        codec.start()
        muxer = java("android.media.MediaMuxer")(str(path), _MP4)
        _encode(codec, muxer, video, java("android.media.MediaCodec$BufferInfo")())
        muxer.stop()
        codec.stop()
    except ExecutionError:
        raise
    except Exception as error:  # Java's exceptions arrive as pyjnius' own
        raise _failed(str(error)[:200]) from error
    finally:
        for part in (muxer, codec):
            if part is not None:
                part.release()


def _encode(codec: Any, muxer: Any, video: Video, info: Any) -> None:
    given, track, idle = 0, -1, 0
    count = len(video.frames)
    while True:
        if given <= count:
            place = codec.dequeueInputBuffer(_WAIT_US)
            if place >= 0:
                time_us, size, flags = round(given * 1e6 / video.fps), 0, _END
                if given < count:
                    data = nv12(video.frames[given])
                    codec.getInputBuffer(place).put(data)
                    size, flags = len(data), 0
                codec.queueInputBuffer(place, 0, size, time_us, flags)
                given += 1
                idle = 0
        place = codec.dequeueOutputBuffer(info, _WAIT_US)
        if place == _FORMAT_CHANGED:
            track = muxer.addTrack(codec.getOutputFormat())
            muxer.start()
        elif place >= 0:
            idle = 0
            if info.size > 0 and not info.flags & _CONFIG:
                muxer.writeSampleData(track, codec.getOutputBuffer(place), info)
            codec.releaseOutputBuffer(place, False)
            if info.flags & _END:
                return
        else:
            idle += 1
            if idle > _PATIENCE:
                raise _failed(f"stuck after {given} of {count} frames")


def _failed(problem: str) -> ExecutionError:
    return ExecutionError(
        "demo.encoder", f"H.264 encoder: {problem}", hint="the clip is saved as WebP instead"
    )
