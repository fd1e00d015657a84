"""A video file on disk: opened safely, scanned without decoding, decoded for chosen frames.

Files are hostile until proven otherwise: only local regular files of known containers are opened
(PyAV, one thread), and frames, pixels, bytes and seconds are bounded.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.cli.verbs import missing_extra
from hummingbird_runtime.errors import InputError, ResourceError, TimeLimitError
from hummingbird_train.curation.clip import Clip

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

# Containers that hold video. Others would let a text file, a playlist or a picture be "decoded".
CONTAINERS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,ogg,flv,asf,h264,hevc,ivf,nut,mxf"
Packet = tuple[int | None, bool, int]  # time stamp, whether a key frame, bytes
_UNEVEN = 0.25  # spread of the intervals, as a share of their median, that makes the rate variable
_LONGEST = 86_400.0  # s, of a span; damaged time stamps say anything
_TICK = 0.0025  # s, rounding of the time stamps that containers do


@dataclass(frozen=True)
class DecodeLimits:
    """What one clip may cost."""

    max_frames: int = 9000
    """frames of the span: 6 minutes at 25 fps."""
    max_pixels: int = 4096 * 2304
    """width x height of a stored frame."""
    max_bytes: int = 1 << 30
    """of all frames kept for the stages."""
    max_seconds: float = 120.0
    """of scanning and decoding."""
    missing: float = 0.1
    """largest share of the frames asked for that may turn out not to decode."""


LIMITS = DecodeLimits()


@dataclass(frozen=True)
class ProbeInfo:
    """What the container says and the scan found, of the clip's span."""

    width: int
    height: int
    fps: float
    """frames over seconds, from the time stamps."""
    frames: int
    duration: float
    """seconds."""
    codec: str
    has_audio: bool
    variable_fps: bool
    """time stamps do not tick evenly."""
    bit_rate: float
    """bits per second of the video stream."""


@dataclass(frozen=True)
class Scan:
    """Frames of the whole file in the order they are shown."""

    info: ProbeInfo
    stream: int
    stamps: NDArray[np.int64]
    """[n] in the stream's time base."""
    times: NDArray[np.float64]
    """[n] seconds, 0 = first frame of the file."""
    keys: NDArray[np.bool_]
    """[n]"""
    span: NDArray[np.int64]
    """indices of the frames inside the clip's [start, end)."""
    by_stamp: bool
    """stamps are there and unique: a decoded frame is found by its own."""


class OpenFile:
    """A clip's file that stays open between passes: opening decodes a frame to know the stream.

    Args:
        clip: the file.
    """

    def __init__(self, clip: Clip) -> None:
        self.clip = clip
        self._container: InputContainer | None = None

    @contextmanager
    def container(self) -> Iterator[InputContainer]:
        """The open container, opened when it is not; a pass that fails closes it.

        Raises:
            InputError: ``clip.missing``, ``clip.not_video``.
            ResourceError: ``clip.unreadable``, ``extra.missing``.
        """
        if self._container is None:
            self._container = _open(self.clip)
        try:
            yield self._container
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close it; the next pass opens it anew."""
        if self._container is not None:
            self._container.close()
            self._container = None


def scan_file(clip: Clip, limits: DecodeLimits, file: OpenFile | None = None) -> Scan:
    """Read every packet's time stamp, size and key flag; decodes nothing.

    Args:
        clip: the file.
        limits: bounds of what it may hold.
        file: stays open afterwards; None opens and closes.

    Raises:
        InputError: ``clip.missing``, ``clip.not_video``, ``clip.no_video``, ``clip.corrupt``,
            ``clip.too_long``, ``clip.too_large``, ``clip.span``.
        ResourceError: ``clip.unreadable``.
        TimeLimitError: ``clip.timeout``.
    """
    deadline = time.perf_counter() + limits.max_seconds
    rows: list[Packet] = []
    unseen = 0
    with _pass(clip, file) as container:
        stream = _video_stream(clip, container)
        width, height = stream.codec_context.width, stream.codec_context.height
        _check_size(clip, width, height, limits)
        try:
            for packet in container.demux(stream):
                if packet.dts is None and not packet.size:
                    continue  # the end
                if packet.size and not packet.is_discard:
                    rows.append((packet.pts, packet.is_keyframe, packet.size))
                else:
                    unseen += 1  # left out by an edit list, or a frame that only repeats another
                _check_time(clip, deadline)
        except _ffmpeg_error() as error:
            raise _corrupt(clip, f"a damaged container ({_why(error)})") from error
        promised = stream.frames
        if not rows or len(rows) + unseen < 0.98 * promised:
            raise _corrupt(clip, f"{len(rows)} frames where {promised} are promised")
        base, rate = float(stream.time_base or 0), stream.average_rate or stream.guessed_rate
        codec, has_audio = stream.codec_context.name, bool(container.streams.audio)
        index = stream.index
    stamps, by_stamp = _stamps(rows)
    if by_stamp and base > 0:
        order = np.argsort(stamps, kind="stable")
        stamps = stamps[order]
        times = (stamps - stamps[0]) * base
    else:  # a bare stream: frames in the order of the file, at the rate it claims
        order = np.arange(len(rows))
        times = order / float(rate or 25)
    keys = np.array([row[1] for row in rows], bool)[order]
    sizes = np.array([row[2] for row in rows], np.float64)[order]
    keys[0] = True
    step = np.diff(times)
    tick = float(np.median(step)) if step.size else 1 / float(rate or 25)
    end = np.inf if clip.end is None else clip.end
    span = np.flatnonzero((times >= clip.start - _TICK) & (times < end - _TICK))
    if not span.size:
        raise InputError(
            "clip.span",
            f"{clip.uri}: got no frame between {clip.start} s and {clip.end} s, expected some of "
            f"the file's {times[-1] + tick:.2f} s",
            hint="correct the span in the source",
        )
    seconds = float(times[span[-1]] - times[span[0]]) + tick
    if span.size > limits.max_frames or seconds > _LONGEST:
        raise InputError(
            "clip.too_long",
            f"{clip.uri}: got {span.size} frames over {seconds:.0f} s, expected at most "
            f"{limits.max_frames} over {_LONGEST:.0f} s",
            hint="give shorter spans in the source's columns start and end",
        )
    inner = np.diff(times[span])
    uneven = inner.size > 1 and float(np.ptp(inner)) > _UNEVEN * tick + _TICK
    info = ProbeInfo(
        width, height, span.size / seconds, int(span.size), seconds, codec, has_audio,
        bool(uneven), float(sizes[span].sum()) * 8 / seconds,
    )  # fmt: skip
    return Scan(info, index, stamps, times, keys, span, by_stamp)


def decoded(
    clip: Clip,
    scan: Scan,
    wanted: Collection[int],
    keys_only: bool,
    deadline: float,
    file: OpenFile | None = None,
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Decode the file and yield the wanted frames, those that decode, with their indices.

    Args:
        clip: the file.
        scan: what ``scan_file`` gave for it.
        wanted: frame numbers of the file.
        keys_only: all of them are key frames: feed the decoder nothing else.
        deadline: ``time.perf_counter()`` value that ends it.
        file: stays open afterwards; None opens and closes.

    Raises:
        TimeLimitError: ``clip.timeout``.
    """
    numbers = {int(stamp): index for index, stamp in enumerate(scan.stamps)}
    left, shown = set(wanted), -1
    failure = _ffmpeg_error()
    first = _key_before(scan, min(left))
    if file is not None and not (scan.by_stamp and _rewind(file, scan, first)):
        file.close()
    with _pass(clip, file) as container:
        stream = container.streams[scan.stream]
        context = stream.codec_context
        if not context.is_open:
            context.thread_count = 1
            context.thread_type = "NONE"
        context.skip_frame = "NONKEY" if keys_only and scan.by_stamp else "DEFAULT"
        if scan.by_stamp and first and file is None:
            try:
                container.seek(int(scan.stamps[first]), stream=stream)
            except failure:  # a container without an index: decode from its start
                container.seek(0)
        packets = container.demux(stream)
        while left:
            _check_time(clip, deadline)
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                if keys_only and scan.by_stamp and packet.size and not packet.is_keyframe:
                    continue
                pictures = packet.decode()
            except failure:  # what does not decode is counted by the caller as missing
                if packet is None or not packet.size:
                    return
                continue
            for picture in pictures:
                shown += 1
                index = numbers.get(picture.pts) if scan.by_stamp else shown
                if index in left:
                    left.discard(index)
                    yield index, picture


@contextmanager
def _pass(clip: Clip, file: OpenFile | None) -> Iterator[InputContainer]:
    if file is None:
        with _open(clip) as container:
            yield container
    else:
        with file.container() as container:
            yield container


def _rewind(file: OpenFile, scan: Scan, first: int) -> bool:
    """Put the file on a frame where decoding can begin; False where that does not work."""
    try:
        with file.container() as container:
            container.seek(int(scan.stamps[first]), stream=container.streams[scan.stream])
    except _ffmpeg_error():
        return False
    return True


def _key_before(scan: Scan, index: int) -> int:
    return int(np.flatnonzero(scan.keys[: index + 1])[-1])


def _stamps(rows: list[Packet]) -> tuple[NDArray[np.int64], bool]:
    stamps = [row[0] for row in rows]
    if None in stamps or len(set(stamps)) < len(stamps):
        return np.arange(len(rows), dtype=np.int64), False
    return np.array(stamps, np.int64), True


def _open(clip: Clip) -> InputContainer:
    try:
        import av
    except ModuleNotFoundError as error:
        raise missing_extra("decoding video", "av", "video") from error
    try:
        facts = os.stat(clip.uri)
    except (OSError, ValueError) as error:
        raise InputError(
            "clip.missing",
            f"{clip.uri}: got no such file, expected a video",
            hint="check the path in the source",
        ) from error
    if not stat.S_ISREG(facts.st_mode) or not facts.st_size:
        raise InputError(
            "clip.not_video",
            f"{clip.uri}: got {'no regular' if facts.st_size else 'an empty'} file, "
            "expected a video",
            hint="download it again",
        )
    options = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
    try:
        return av.open(clip.uri, container_options=options, metadata_errors="replace")
    except PermissionError as error:
        raise ResourceError(
            "clip.unreadable",
            f"{clip.uri}: got {error.strerror}, expected a readable file",
            hint="check its permissions",
        ) from error
    except (av.FFmpegError, ValueError) as error:
        raise InputError(
            "clip.not_video",
            f"{clip.uri}: got no container that can be read ({_why(error)}), expected a video",
            hint="play it with another program; download it again",
        ) from error


def _video_stream(clip: Clip, container: InputContainer) -> av.VideoStream:
    from av.stream import Disposition

    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            if stream.codec_context is None:
                raise _corrupt(clip, "a codec that is not known")
            return stream
    kinds = sorted({stream.type for stream in container.streams})
    raise InputError(
        "clip.no_video",
        f"{clip.uri}: got only {', '.join(kinds) or 'no'} streams, expected video",
        hint="leave sound files out of the source",
    )


def _check_size(clip: Clip, width: int, height: int, limits: DecodeLimits) -> None:
    if width < 1 or height < 1:
        raise _corrupt(clip, f"frames of {width}x{height}")
    if width * height > limits.max_pixels:
        raise InputError(
            "clip.too_large",
            f"{clip.uri}: got frames of {width}x{height}, expected at most "
            f"{limits.max_pixels} pixels",
            hint="scale the video down first",
        )


def _check_time(clip: Clip, deadline: float) -> None:
    if time.perf_counter() > deadline:
        raise TimeLimitError(
            "clip.timeout",
            f"{clip.uri}: got no end of the decode within its time limit",
            hint="split the video into shorter clips",
        )


def _corrupt(clip: Clip, what: str) -> InputError:
    return InputError(
        "clip.corrupt",
        f"{clip.uri}: got {what}, expected a whole video",
        hint="play it with another program; download it again",
    )


def _ffmpeg_error() -> type[Exception]:
    import av

    error: type[Exception] = av.FFmpegError
    return error


def _why(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)[:120]
