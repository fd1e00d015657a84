"""Scenes to pixels: signed distance, anti-aliased over one pixel, batched NumPy.

An object is one flat palette colour under a soft light from the upper left; backgrounds are fixed
images. Distances are in units of the object's radius, measured from its centroid, y downwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.errors import UsageError
from hummingbird_train.world.scene import BACKGROUNDS, FRAMES, PALETTE, SIZE, Scene, trajectory

Plane = NDArray[np.float32]

_CHUNK = 12  # frames drawn at once: the temporaries of a chunk stay inside a 1 MiB cache
_LIGHT = 0.07  # the shading spans 1 - _LIGHT .. 1 + _LIGHT across the object
_ROUND = 0.10  # corner radius of square and triangle, in object radii
_TRIANGLE = 1.247 - _ROUND  # circumradius before rounding
_HEART_SCALE = 1.03 / (0.25 + 0.125**0.5)  # object radii per unit of the heart's own frame
_HEART_Y = 0.65683  # centroid height in the heart's own frame
_STAR = (1.15, 0.52)  # outer and inner vertex


def render(
    scenes: Sequence[Scene], frame_indices: Sequence[int], size: int = SIZE
) -> NDArray[np.uint8]:
    """Draw frames of scenes.

    Args:
        scenes: n scenes.
        frame_indices: f frame numbers in [0, 25], in any order.
        size: height and width in pixels; 64 is the world's own, larger is the same scene enlarged.

    Returns:
        uint8 [n, f, size, size, 3], RGB.

    Raises:
        UsageError: a frame number outside the clip, or a size under 8.
    """
    frames = np.asarray(frame_indices, dtype=np.int64).reshape(-1)
    if frames.size and (frames.min() < 0 or frames.max() >= FRAMES):
        raise UsageError(
            "world.frame",
            f"frame number outside the clip, got {frames.min()}..{frames.max()}, "
            f"expected 0..{FRAMES - 1}",
            hint=f"a clip has {FRAMES} frames",
        )
    if size < 8:
        raise UsageError(
            "world.size", f"picture too small, got {size}, expected at least 8", hint="pass 64"
        )
    out = np.empty((len(scenes), frames.size, size, size, 3), np.uint8)  # (n, f, h, w, c)
    if not out.size:
        return out
    flat = out.reshape(-1, size, size, 3)  # (n * f, h, w, c)
    x, y, radius, angle = (part.reshape(-1) for part in trajectory(scenes, frames / (FRAMES - 1)))
    scale = size / SIZE
    owner = np.repeat(np.arange(len(scenes)), frames.size)  # scene of each flat frame
    shapes = np.array([scene.shape for scene in scenes])[owner]
    backdrops = background_images(size)
    names = tuple(backdrops)
    planes = np.stack([backdrops[name] for name in names])  # (k, 3, h, w)
    backdrop = np.array([names.index(scene.background) for scene in scenes])[owner]
    colour = np.array([PALETTE[scene.colour] for scene in scenes], np.float32)[owner]  # (n * f, 3)
    for shape in sorted(set(shapes.tolist())):
        members = np.flatnonzero(shapes == shape)
        for start in range(0, members.size, _CHUNK):
            rows = members[start : start + _CHUNK]
            u, v = _object_frame(x[rows] * scale, y[rows] * scale, radius[rows] * scale, size)
            shade = (1 - _LIGHT / 1.4 * np.clip(u + v, -1.4, 1.4))[:, None]  # (m, 1, h, w)
            distance = shape_distance(shape, *_turn(u, v, angle[rows]))
            pixels = (radius[rows] * scale).astype(np.float32)[:, None, None]
            cover = np.clip(0.5 - distance * pixels, 0, 1)[:, None]
            behind = planes[backdrop[rows]]  # (m, 3, h, w)
            paint = np.minimum(colour[rows][:, :, None, None] * shade, 255)
            paint -= behind
            paint *= cover
            paint += behind
            paint += 0.5
            flat[rows] = paint.astype(np.uint8).transpose(0, 2, 3, 1)
    return out


def shape_distance(shape: str, u: Plane, v: Plane) -> Plane:
    """Signed distance to a shape of radius 1 whose centroid is the origin; negative inside."""
    return _DISTANCES[shape](u, v)


@lru_cache(maxsize=4)
def background_images(size: int = SIZE) -> dict[str, Plane]:
    """Every background as float32 [3, size, size] in [0, 255]."""
    ramp = ((np.arange(size) + 0.5) / size).astype(np.float32)[:, None]  # (h, 1), 0 at the top
    cell = np.arange(size) * 4 // size  # four cells across
    images = {
        "black": _flat((12, 12, 16), size),
        "white": _flat((244, 244, 242), size),
        "grey": _flat((128, 128, 130), size),
        "sky": _ramp(ramp, (118, 178, 236), (222, 238, 250), size),
        "checker": _two_tone((cell[:, None] + cell[None, :]) % 2, size),
        "stripes": _two_tone(np.broadcast_to(cell[:, None] % 2, (size, size)), size),
        "sunset": _ramp(ramp, (34, 30, 72), (120, 76, 92), size),
    }
    for image in images.values():
        image.flags.writeable = False
    return {name: images[name] for name in BACKGROUNDS[2]}


def _flat(rgb: tuple[int, int, int], size: int) -> Plane:
    return np.ascontiguousarray(
        np.broadcast_to(np.array(rgb, np.float32)[:, None, None], (3, size, size))
    )


def _ramp(ramp: Plane, top: tuple[int, int, int], bottom: tuple[int, int, int], size: int) -> Plane:
    image = _flat(top, size) * (1 - ramp) + _flat(bottom, size) * ramp
    return np.round(image).astype(np.float32)


def _two_tone(odd: NDArray[np.int64], size: int) -> Plane:
    return np.where(odd == 1, _flat((86, 86, 92), size), _flat((192, 192, 194), size))


def _object_frame(
    x: NDArray[np.float64], y: NDArray[np.float64], radius: NDArray[np.float64], size: int
) -> tuple[Plane, Plane]:
    """Coordinates of the pixel centres seen from each object, in radii: two [m, size, size]."""
    pixel = np.arange(size) + 0.5
    u = ((pixel - x[:, None]) / radius[:, None]).astype(np.float32)[:, None, :]
    v = ((pixel - y[:, None]) / radius[:, None]).astype(np.float32)[:, :, None]
    shape = (x.size, size, size)
    return np.broadcast_to(u, shape), np.broadcast_to(v, shape)


def _turn(u: Plane, v: Plane, angle: NDArray[np.float64]) -> tuple[Plane, Plane]:
    if not angle.any():
        return u, v
    cos = np.cos(angle).astype(np.float32)[:, None, None]
    sin = np.sin(angle).astype(np.float32)[:, None, None]
    return u * cos + v * sin, v * cos - u * sin


def _circle(u: Plane, v: Plane) -> Plane:
    return np.sqrt(u * u + v * v) - 1


def _ring(u: Plane, v: Plane) -> Plane:
    return np.abs(np.sqrt(u * u + v * v) - 0.76) - np.float32(0.24)


def _square(u: Plane, v: Plane) -> Plane:
    a, b = np.abs(u) - np.float32(0.9 - _ROUND), np.abs(v) - np.float32(0.9 - _ROUND)
    outside = np.hypot(np.maximum(a, 0), np.maximum(b, 0))
    return outside + np.minimum(np.maximum(a, b), 0) - np.float32(_ROUND)


def _triangle(u: Plane, v: Plane) -> Plane:
    """Equilateral, apex up: fold by its symmetries onto one side, then round the corners."""
    half = np.float32(_TRIANGLE * 3**0.5 / 2)
    root3 = np.float32(3**0.5)
    a = np.abs(u) - half
    b = half / root3 - v
    fold = a + root3 * b > 0
    a, b = np.where(fold, (a - root3 * b) / 2, a), np.where(fold, (-root3 * a - b) / 2, b)
    a = a - np.clip(a, -2 * half, 0)
    distance: Plane = -np.sqrt(a * a + b * b) * np.sign(b) - np.float32(_ROUND)
    return distance


def _heart(u: Plane, v: Plane) -> Plane:
    """Two half circles on the upper sides of a square that stands on its corner."""
    scale = np.float32(_HEART_SCALE)
    a = np.abs(u) / scale
    b = np.float32(_HEART_Y) - v / scale
    lobe = np.hypot(a - np.float32(0.25), b - np.float32(0.75)) - np.float32(0.125**0.5)
    diagonal = np.maximum(a + b, 0) / 2
    edge = np.minimum(a * a + (b - 1) ** 2, (a - diagonal) ** 2 + (b - diagonal) ** 2)
    body = np.sqrt(edge) * np.sign(a - b)
    return np.where(a + b > 1, lobe, body) * scale


def _star(u: Plane, v: Plane) -> Plane:
    """Five points, one up: fold onto one half-edge, then the distance to that segment."""
    turn = np.float32(2 * np.pi / 5)
    around = np.arctan2(u, -v)
    around = np.abs(around - turn * np.round(around / turn))
    reach = np.sqrt(u * u + v * v)
    a, b = reach * np.sin(around), reach * np.cos(around)
    tip = np.float32(_STAR[0])
    ex = np.float32(_STAR[1] * np.sin(np.pi / 5))
    ey = np.float32(_STAR[1] * np.cos(np.pi / 5)) - tip
    along = np.clip((a * ex + (b - tip) * ey) / (ex * ex + ey * ey), 0, 1)
    gap = np.hypot(a - along * ex, b - tip - along * ey)
    return gap * np.sign(a * -ey + (b - tip) * ex)


_DISTANCES: dict[str, Callable[[Plane, Plane], Plane]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "ring": _ring,
    "heart": _heart,
    "star": _star,
}
