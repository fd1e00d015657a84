"""The bytes of a clip as a dataset stores them: its file as it is, or its span cut out as H.264.

A whole file in a container that training reads is copied byte for byte. A span of a file, or
another container, is decoded and encoded again; x264 does not give equal bytes every time, even in
one thread, so only copied clips make shards that are equal to the byte.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from hummingbird_runtime.cli.verbs import missing_extra
from hummingbird_runtime.errors import HummingbirdError, InputError
from hummingbird_train.curation.clip import Clip, clip_id
from hummingbird_train.curation.video_file import LIMITS, decoded, scan_file

if TYPE_CHECKING:
    import av

STORED = (".mp4", ".webm", ".mkv", ".mov", ".avi", ".m4v")
"""suffixes that are copied as they are; the training loader reads them all"""


@dataclass(frozen=True)
class Encoding:
    """How a span is encoded."""

    crf: int = 16
    """x264's quality: 0 lossless, 51 worst; 16 is hard to tell from the source"""
    preset: str = "fast"
    """x264's speed"""


def clip_bytes(
    clip: Clip,
    encoding: Encoding = Encoding(),
) -> tuple[str, bytes]:
    """Read a clip for packing.

    Returns:
        (suffix such as ``.mp4``, the file's bytes).

    Raises:
        InputError: ``pack.changed`` when the file is not the one that was scored; the ``clip.*``
            codes of opening and decoding.
    """
    path = Path(clip.uri)
    suffix = path.suffix.lower()
    check_unchanged(clip)
    try:
        if clip.start == 0 and clip.end is None and suffix in STORED:
            return suffix, path.read_bytes()
        return ".mp4", _encode(clip, encoding)
    except OSError as error:
        raise InputError(
            "clip.unreadable", f"{clip.uri}: {error}, expected a readable file",
            hint="check its permissions, or the disk",
        ) from error  # fmt: skip


def check_unchanged(clip: Clip) -> None:
    """Refuse a file that changed, or went away, after it was scored.

    Raises:
        InputError: ``pack.changed``.
    """
    try:
        facts = Path(clip.uri).stat()
        now = clip_id(clip.uri, clip.start, clip.end, facts.st_size, facts.st_mtime_ns)
    except (OSError, ValueError) as error:
        now = f"none ({error})"
    if now != clip.id:
        raise InputError(
            "pack.changed",
            f"{clip.uri}: got another file than was scored, expected clip {clip.id}, got {now}",
            hint="score the source again; only what changed is measured",
        )


def _encode(clip: Clip, encoding: Encoding) -> bytes:
    try:
        import av
    except ModuleNotFoundError as error:
        raise missing_extra("cutting clips out of files", "av", "video") from error
    import time

    scan = scan_file(clip, LIMITS)
    width, height = scan.info.width & ~1, scan.info.height & ~1  # 4:2:0 needs even sides
    rate = Fraction(scan.info.fps).limit_denominator(1001)
    wanted = [int(index) for index in scan.span]
    order = {index: number for number, index in enumerate(wanted)}
    waiting: dict[int, av.VideoFrame] = {}
    shown = 0
    buffer = io.BytesIO()
    try:
        with av.open(buffer, "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=rate)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.codec_context.thread_count = 1
            stream.options = {
                "crf": str(encoding.crf),
                "preset": encoding.preset,
            }
            deadline = time.perf_counter() + LIMITS.max_seconds
            for index, picture in decoded(clip, scan, wanted, False, deadline):
                waiting[order[index]] = picture
                while shown in waiting:
                    frame = _fresh(waiting.pop(shown), width, height)
                    frame.pts, frame.time_base = shown, 1 / rate
                    container.mux(stream.encode(frame))
                    shown += 1
            container.mux(stream.encode(None))
    except (av.FFmpegError, ValueError) as error:
        if isinstance(error, HummingbirdError):
            raise
        raise _torn(clip, str(error)) from error
    if shown != len(wanted):
        raise _torn(clip, f"{shown} of {len(wanted)} frames decode")
    return buffer.getvalue()


def _fresh(picture: av.VideoFrame, width: int, height: int) -> av.VideoFrame:
    """A frame with the pixels and colours of a decoded one.

    What else a decoder hangs on its frames (types, quantizers) steers x264, and not always alike.
    """
    from av import VideoFrame

    pixels = picture.reformat(width, height, "yuv420p").to_ndarray()
    frame = VideoFrame.from_ndarray(pixels, format="yuv420p")
    frame.color_range, frame.colorspace = picture.color_range, picture.colorspace
    return frame


def _torn(clip: Clip, why: str) -> InputError:
    return InputError(
        "clip.corrupt",
        f"{clip.uri}: got a span that cannot be cut out ({why}), expected whole frames",
        hint="play it with another program; download it again",
    )
