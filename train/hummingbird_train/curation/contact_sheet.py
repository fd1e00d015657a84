"""A few frames of a clip side by side as one small picture, embedded as a data URI."""

from __future__ import annotations

import base64
import io

import numpy as np

from hummingbird_runtime.cli.verbs import missing_extra
from hummingbird_runtime.errors import HummingbirdError
from hummingbird_train.curation.clip import Clip
from hummingbird_train.curation.decode import decode
from hummingbird_train.curation.stage import FramePlan

_GAP = 2  # pixels between frames


def strip_uri(clip: Clip, *, frames: int = 4, height: int = 96) -> str:
    """Decode frames spread over the clip and encode them as one WebP picture.

    Args:
        clip: whose file is read.
        frames: how many, fewer for a shorter clip.
        height: pixels of the picture, or the clip's own when that is less.

    Returns:
        ``data:image/webp;base64,...``; empty when the clip does not decode.

    Raises:
        ResourceError: ``extra.missing``.
    """
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise missing_extra("the report's contact sheets", "PIL", "image") from error
    plan = FramePlan(max_frames=frames, height=height)
    try:
        pictures = decode(clip, [plan]).of(plan)  # (n, h, w, 3) RGB
    except HummingbirdError as error:
        if error.code == "extra.missing":
            raise
        return ""
    gap = np.zeros((pictures.shape[1], _GAP, 3), np.uint8)
    row = [part for picture in pictures for part in (picture, gap)][:-1]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(row, axis=1)).save(buffer, "WEBP", quality=60, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
