"""What a clip is known again by: a digest of its file, and a perceptual hash of its pictures.

The perceptual hash is the 64-bit DCT hash (Zauner 2010, "pHash"): luma averaged down to 32 x 32,
its 8 x 8 lowest frequencies without the mean's row and column, each bit a coefficient above the
median; of several frames over the clip. Grouping clips is the corpus's business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.errors import ResourceError
from hummingbird_train.curation.clip import Clip
from hummingbird_train.curation.decode import Frames
from hummingbird_train.curation.stage import FramePlan, Scores, Stage
from hummingbird_train.curation.stages.opencv import luma, opencv
from hummingbird_train.curation.stages.plans import OVERVIEW

SIDE, KEPT = 32, 8  # pixels of the hashed picture; frequencies kept each way
FRAMES = 4  # of OVERVIEW's, evenly over the clip
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Fingerprint(Stage):
    """SHA-256 of the file and a perceptual hash of the span."""

    name: ClassVar[str] = "fingerprint"
    version: ClassVar[int] = 1
    needs: ClassVar[FramePlan] = OVERVIEW
    after: ClassVar[tuple[str, ...]] = ()

    def score(self, clip: Clip, frames: Frames, earlier: Mapping[str, Scores]) -> Scores:
        """Keys ``sha256`` (of the file and span) and ``hash``: 64 hexadecimal digits, 256 bits."""
        y = frames.derived(("luma", OVERVIEW), lambda: luma(frames.of(OVERVIEW)))
        picked = np.linspace(0, len(y) - 1, FRAMES).round().astype(int)
        return {"sha256": file_digest(clip), "hash": perceptual_hash(y[picked])}


def perceptual_hash(y: NDArray[np.uint8]) -> str:
    """Hash luma pictures.

    Args:
        y: uint8 [n, h, w].

    Returns:
        16 n hexadecimal digits, frame by frame; close pictures differ in few bits.
    """
    cv2 = opencv()
    out = []
    for picture in y:
        small = cv2.resize(picture.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        low = cv2.dct(small)[1 : KEPT + 1, 1 : KEPT + 1].reshape(-1)  # (64,)
        out.append(np.packbits(low > np.median(low)).tobytes().hex())
    return "".join(out)


def hamming(a: str, b: str) -> int:
    """Bits in which two hashes of one length differ."""
    return (int(a, 16) ^ int(b, 16)).bit_count()


def nearest(hashes: Sequence[str]) -> NDArray[np.int64]:
    """Distance of each hash to the nearest other one: int64 [n] bits; n >= 2, one length."""
    words = np.array([list(bytes.fromhex(text)) for text in hashes], np.uint8)  # (n, bytes)
    ones = np.array([value.bit_count() for value in range(256)], np.int64)
    out = np.empty(len(words), np.int64)
    for i, word in enumerate(words):
        distance = ones[words ^ word].sum(axis=1)
        distance[i] = np.iinfo(np.int64).max
        out[i] = distance.min()
    return out


def file_digest(clip: Clip) -> str:
    """SHA-256 over the file's bytes and the clip's span, in hexadecimal.

    Raises:
        ResourceError: ``clip.unreadable``.
    """
    digest = hashlib.sha256(f"{clip.start!r}/{clip.end!r}/".encode())
    try:
        with open(clip.uri, "rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise ResourceError(
            "clip.unreadable",
            f"{clip.uri}: got {error.strerror}, expected a readable file",
            hint="check its permissions",
        ) from error
    return digest.hexdigest()
