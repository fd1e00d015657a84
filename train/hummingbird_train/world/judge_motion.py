"""The judge's decision list for motion: growth, orbit, travel, hops, spin, rest, in that order.

All lengths are pixels and all angles radians over the whole clip, however many frames show it.
The thresholds belong to JUDGE_VERSION in ``judge.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hummingbird_train.world.scene import DIRECTIONS

GROWTH = float(np.log(1.35))  # least |log(last radius / first radius)|
TRAVEL = 9.0  # least px between the ends of a straight path
CROOKED = 0.25  # largest root-mean-square deviation from the path, as a share of its length
ORBIT_TURN = np.deg2rad(240.0)  # least winding angle about the mean position
ORBIT_RADIUS = 4.0  # least px
HOP = 8.0  # least vertical range in px
HOP_DRIFT = 5.0  # largest horizontal range in px of hops on the spot
SPIN = np.deg2rad(60.0)  # least turn
REST_TRAVEL = 6.0  # largest px between the ends of a path at rest
REST_WOBBLE = 2.5  # largest root-mean-square deviation in px at rest

# A shape looks the same again after this turn; a circle and a ring show no turn at all.
_SYMMETRY = {
    "square": np.pi / 2,
    "triangle": 2 * np.pi / 3,
    "heart": 2 * np.pi,
    "star": 2 * np.pi / 5,
}


@dataclass(frozen=True)
class Track:
    """Where and how large the object is in the m frames that show it."""

    frame: NDArray[np.float64]
    """[m] frame numbers."""
    x: NDArray[np.float64]
    """[m] centroid, px."""
    y: NDArray[np.float64]
    """[m] centroid, px, downwards."""
    log_root_area: NDArray[np.float64]
    """[m] log of the square root of the area in px."""


def judge_motion(track: Track, shape: str, turn: NDArray[np.float64]) -> str | None:
    """Name the motion of a track.

    Args:
        track: measurements of at least two frames.
        shape: the shape that fits best, for its symmetry.
        turn: [m] rad, the rotation at which it fits.

    Returns:
        A tier-2 motion, or None where nothing fits.
    """
    if track.frame.size < 2:
        return None
    t = (track.frame - track.frame[0]) / (track.frame[-1] - track.frame[0])  # (m,) 0..1
    growth = np.polyfit(t, track.log_root_area, 1)[0]
    if abs(growth) >= GROWTH:
        return "growing" if growth > 0 else "shrinking"
    if _orbits(track):
        return "circling"
    slope_x, mid_x = np.polyfit(t, track.x, 1)
    slope_y, mid_y = np.polyfit(t, track.y, 1)
    travel = np.hypot(slope_x, slope_y)
    off = np.hypot(track.x - slope_x * t - mid_x, track.y - slope_y * t - mid_y)
    wobble = np.sqrt(np.mean(off**2))
    if travel >= TRAVEL and wobble <= CROOKED * travel:
        along = {
            name: (dx * slope_x + dy * slope_y) / np.hypot(dx, dy)
            for name, (dx, dy) in DIRECTIONS.items()
        }
        return max(along, key=lambda name: along[name])
    if np.ptp(track.y) >= HOP and np.ptp(track.x) <= HOP_DRIFT:
        return "bouncing"
    if travel <= REST_TRAVEL and wobble <= REST_WOBBLE:
        return "spinning" if _turned(shape, turn) >= SPIN else "still"
    return None


def _orbits(track: Track) -> bool:
    dx, dy = track.x - track.x.mean(), track.y - track.y.mean()
    if np.hypot(dx, dy).min() < ORBIT_RADIUS:
        return False
    winding = np.unwrap(np.arctan2(dy, dx))
    return bool(abs(winding[-1] - winding[0]) >= ORBIT_TURN)


def _turned(shape: str, turn: NDArray[np.float64]) -> float:
    """Angle turned over the clip, counted through the shape's symmetry."""
    if shape not in _SYMMETRY:
        return 0.0
    angle = np.unwrap(turn, period=_SYMMETRY[shape])
    return float(abs(angle[-1] - angle[0]))
