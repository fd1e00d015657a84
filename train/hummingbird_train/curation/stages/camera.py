"""What the camera does: a similarity (scale, turn, shift) fitted to optical flow by RANSAC.

The picture's majority is taken for the scene. Its scale rate is a zoom or a dolly: without depth
the two look alike, and a dolly zoom scales the background while the subject keeps its size. Points
are complex numbers about the picture's centre, so w = a z + b holds zoom, roll and pan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hummingbird_train.curation.clip import Clip
from hummingbird_train.curation.decode import Frames
from hummingbird_train.curation.stage import FramePlan, Scores, Stage
from hummingbird_train.curation.stages.flow import Flow, pair_flows
from hummingbird_train.curation.stages.opencv import luma, opencv
from hummingbird_train.curation.stages.plans import PAIRS

STEP = 6  # pixels between the points that are fitted
LEAST_POINTS = 24
TEXTURE = 1.6  # smallest root of the structure tensor's lesser eigenvalue, grey levels per pixel
TOLERANCE, SHARE = 0.2, 0.15  # pixels, plus this share of the point's own motion
TRIALS = 64
SEEN = 0.02  # picture heights a second at the picture's edge from which a motion has a name

Points = NDArray[np.complex128]


@dataclass(frozen=True)
class Camera(Stage):
    """Rates of zoom, roll and pan over the clip, and how well they explain the flow."""

    name: ClassVar[str] = "camera"
    version: ClassVar[int] = 2
    needs: ClassVar[FramePlan] = PAIRS
    after: ClassVar[tuple[str, ...]] = ()

    def score(self, clip: Clip, frames: Frames, earlier: Mapping[str, Scores]) -> Scores:
        """Keys ``zoom zoom_signed roll pan fit residual kind``.

        ``zoom`` is |d ln scale / dt| of the clip's mean (1/s), ``zoom_signed`` grows into the
        picture, ``roll`` rad/s, ``pan`` picture heights/s, ``fit`` the share of points that follow,
        ``residual`` what the model leaves of all points (heights/s), ``kind`` one of still, zoom,
        pan, roll, free.
        """
        y = frames.derived(("luma", PAIRS), lambda: luma(frames.of(PAIRS)))
        seconds, flows = pair_flows(frames, PAIRS)
        height, width = y.shape[1:]
        rows = []
        for k, dt, flow in zip(frames.pairs(PAIRS).tolist(), seconds, flows, strict=True):
            z, w = textured_points(y[k], flow)
            if z.size < LEAST_POINTS:
                continue
            a, b, follows = fit_similarity(z, w)
            left = np.abs(a * z + b - w).mean() / height
            turn, shift = np.log(a) / dt, abs(b) / height / dt
            rows.append((turn.real, turn.imag, shift, follows.mean(), left / dt))
        if not rows:
            zero = dict.fromkeys(("zoom", "zoom_signed", "roll", "pan", "fit", "residual"), 0.0)
            return {**zero, "kind": "unknown"}
        zoom, roll, pan, fit, residual = (float(value) for value in np.median(rows, axis=0))
        return {
            "zoom": abs(zoom),
            "zoom_signed": zoom,
            "roll": roll,
            "pan": pan,
            "fit": fit,
            "residual": residual,
            "kind": name_motion(zoom, roll, pan, fit, width / height),
        }


def textured_points(y: NDArray[np.uint8], flow: Flow) -> tuple[Points, Points]:
    """Points where flow can be trusted, before and after, as x + iy pixels from the centre.

    Args:
        y: luma uint8 [h, w].
        flow: float32 [h, w, 2].

    Returns:
        Two complex [n]: points with gradients in two directions, on a grid of STEP pixels.
    """
    cv2 = opencv()
    height, width = y.shape
    corner = np.sqrt(np.maximum(cv2.cornerMinEigenVal(y, 7) * 255.0**2, 0))
    rows, columns = np.mgrid[STEP : height - STEP : STEP, STEP : width - STEP : STEP]
    rows, columns = rows.reshape(-1), columns.reshape(-1)
    good = corner[rows, columns] >= TEXTURE
    rows, columns = rows[good], columns[good]
    z = (columns - (width - 1) / 2) + 1j * (rows - (height - 1) / 2)
    moved = flow[rows, columns].astype(np.float64)
    return z, z + moved[:, 0] + 1j * moved[:, 1]


def fit_similarity(z: Points, w: Points) -> tuple[complex, complex, NDArray[np.bool_]]:
    """Fit w = a z + b by RANSAC over pairs of points, then least squares on those that follow.

    Args:
        z: complex [n], n >= 2 distinct points.
        w: complex [n], where they went.

    Returns:
        a (|a| scale, arg a turn), b (shift of the centre), bool [n] who follows. The same for the
        same points: trials are drawn from a fixed seed.
    """
    rng = np.random.default_rng(0)
    i = rng.integers(z.size, size=TRIALS)
    j = (i + 1 + rng.integers(z.size - 1, size=TRIALS)) % z.size
    gap = z[j] - z[i]
    a = (w[j] - w[i]) / np.where(gap == 0, 1, gap)  # (trials,)
    a = np.where(gap == 0, 1, a)
    b = w[i] - a * z[i]
    allowed = (TOLERANCE + SHARE * np.abs(w - z)) ** 2
    scales, shifts = (column[:, None].astype(np.complex64) for column in (a, b))
    missed = scales * z.astype(np.complex64) + shifts - w.astype(np.complex64)  # (trials, n)
    follows = _squared(missed) <= allowed.astype(np.float32)
    kept = follows[int(np.count_nonzero(follows, axis=1).argmax())]
    for _ in range(2):
        scale, shift = _least_squares(z[kept], w[kept])
        again = _squared(scale * z + shift - w) <= allowed
        if again.sum() < 2:
            break
        kept = again
    return scale, shift, kept


def name_motion(zoom: float, roll: float, pan: float, fit: float, aspect: float) -> str:
    """Name what moves the picture's edge most; "free" where less than half of the points follow."""
    if fit < 0.5:
        return "free"
    reach = np.hypot(aspect, 1.0) / 2  # heights from the centre to a corner
    rates = {"zoom": abs(zoom) * reach, "roll": abs(roll) * reach, "pan": pan}
    strongest = max(rates, key=lambda kind: rates[kind])
    return strongest if rates[strongest] >= SEEN else "still"


def _squared(z: NDArray[Any]) -> NDArray[Any]:
    """Squared length of complex numbers, in their precision."""
    return z.real**2 + z.imag**2


def _least_squares(z: Points, w: Points) -> tuple[complex, complex]:
    z_0, w_0 = z.mean(), w.mean()
    spread = float(np.square(np.abs(z - z_0)).sum())
    a = complex((np.conj(z - z_0) * (w - w_0)).sum() / spread) if spread else 1 + 0j
    return a, complex(w_0 - a * z_0)
