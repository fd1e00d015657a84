"""The app's own icons as strokes on a grid of 24, drawn at any size with smooth edges.

A pixel's coverage is taken from its distance to the nearest stroke, so an icon is sharp at every
density without an image file. The mark of the app is made of filled triangles.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

UNIT = 24.0
Point = tuple[float, float]
Stroke = tuple[Point, ...]


def _arc(x: float, y: float, radius: float, start: float, end: float) -> Stroke:
    """Degrees, clockwise from the right, as seen on a screen."""
    count = max(2, round(abs(end - start) / 12))
    angles = [math.radians(start + (end - start) * i / count) for i in range(count + 1)]
    return tuple((x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles)


def _circle(x: float, y: float, radius: float) -> Stroke:
    return _arc(x, y, radius, 0, 360)


def _box(left: float, top: float, right: float, bottom: float, r: float = 2.0) -> Stroke:
    corners = (
        _arc(right - r, top + r, r, -90, 0)
        + _arc(right - r, bottom - r, r, 0, 90)
        + _arc(left + r, bottom - r, r, 90, 180)
        + _arc(left + r, top + r, r, 180, 270)
    )
    return (*corners, corners[0])


def _gear() -> Stroke:
    points: list[Point] = []
    for tooth in range(8):
        middle = 45.0 * tooth
        for offset, radius in ((-14, 6.6), (-9, 9.2), (9, 9.2), (14, 6.6)):
            angle = math.radians(middle + offset)
            points.append((12 + radius * math.cos(angle), 12 + radius * math.sin(angle)))
    return (*points, points[0])


def _spark(x: float, y: float, r: float) -> Stroke:
    points: list[Point] = []
    for i in range(8):
        radius = r if i % 2 == 0 else r * 0.34
        angle = math.radians(45 * i - 90)
        points.append((x + radius * math.cos(angle), y + radius * math.sin(angle)))
    return (*points, points[0])


ICONS: dict[str, tuple[Stroke, ...]] = {
    "create": (_spark(10, 13, 7.5), ((19, 3), (19, 8)), ((16.5, 5.5), (21.5, 5.5))),
    "gallery": (_box(3, 3, 10.5, 10.5), _box(13.5, 3, 21, 10.5),
                _box(3, 13.5, 10.5, 21), _box(13.5, 13.5, 21, 21)),
    "models": (((12, 2.5), (20.5, 7.2), (20.5, 16.8), (12, 21.5), (3.5, 16.8), (3.5, 7.2),
                (12, 2.5)), ((3.5, 7.2), (12, 12), (20.5, 7.2)), ((12, 12), (12, 21.5))),
    "settings": (_gear(), _circle(12, 12, 3)),
    "tune": (((3, 7), (11, 7)), ((17, 7), (21, 7)), _circle(14, 7, 2.6),
             ((3, 17), (6, 17)), ((12, 17), (21, 17)), _circle(9, 17, 2.6)),
    "shuffle": (((3, 6), (6.5, 6), (15.5, 18), (21, 18)), ((18, 15), (21, 18), (18, 21)),
                ((3, 18), (6.5, 18), (9, 14.7)), ((13, 9.3), (15.5, 6), (21, 6)),
                ((18, 3), (21, 6), (18, 9))),
    "save": (((12, 3), (12, 15)), ((7, 10.5), (12, 15.5), (17, 10.5)),
             ((4, 16), (4, 20.5), (20, 20.5), (20, 16))),
    "share": (_circle(6, 12, 2.8), _circle(17.5, 5.5, 2.8), _circle(17.5, 18.5, 2.8),
              ((8.5, 10.6), (15, 6.9)), ((8.5, 13.4), (15, 17.1))),
    "delete": (((4, 6.5), (20, 6.5)), ((9, 6.5), (9, 3.5), (15, 3.5), (15, 6.5)),
               ((6, 6.5), (7, 20.5), (17, 20.5), (18, 6.5)), ((10, 10.5), (10, 16.5)),
               ((14, 10.5), (14, 16.5))),
    "close": (((5.5, 5.5), (18.5, 18.5)), ((18.5, 5.5), (5.5, 18.5))),
    "check": (((4.5, 12.5), (10, 18), (19.5, 6.5)),),
    "back": (((14.5, 5), (7.5, 12), (14.5, 19)),),
    "forward": (((9.5, 5), (16.5, 12), (9.5, 19)),),
    "play": (((7, 4.5), (19, 12), (7, 19.5), (7, 4.5)),),
    "pause": (((8, 5), (8, 19)), ((16, 5), (16, 19))),
    "folder": (((3, 19.5), (3, 4.5), (9.5, 4.5), (11.5, 7.5), (21, 7.5), (21, 19.5), (3, 19.5)),),
    "archive": (_box(4, 3, 20, 21), ((12, 3), (12, 6)), ((12, 9), (12, 12)),
                _circle(12, 15.5, 1.6)),
    "warning": (((12, 3.5), (21.5, 20), (2.5, 20), (12, 3.5)), ((12, 10), (12, 14.5)),
                ((12, 17.2), (12, 17.3))),
    "info": (_circle(12, 12, 9), ((12, 11), (12, 16.5)), ((12, 7.5), (12, 7.6))),
    "plus": (((12, 4.5), (12, 19.5)), ((4.5, 12), (19.5, 12))),
    "edit": (((4, 20), (5, 15.5), (16, 4.5), (19.5, 8), (8.5, 19), (4, 20)),
             ((13.5, 7), (17, 10.5))),
    "stop": (_box(5.5, 5.5, 18.5, 18.5),),
    "measure": (_arc(12, 14, 9, 150, 390), ((12, 14), (16.5, 8.5)), _circle(12, 14, 1)),
    "licence": (((5, 2.5), (14.5, 2.5), (19, 7), (19, 21.5), (5, 21.5), (5, 2.5)),
                ((8.5, 11), (15.5, 11)), ((8.5, 15.5), (15.5, 15.5))),
    "language": (_circle(12, 12, 9), ((3, 12), (21, 12)),
                 tuple((12 + 4 * math.cos(a / 8 * math.pi), 12 + 9 * math.sin(a / 8 * math.pi))
                       for a in range(17))),
    "theme": (_arc(12, 12, 8.6, 0, 360), _arc(15.5, 9, 6.2, 75, 215)),
}  # fmt: skip
"""Polylines by name; y grows downwards."""

MARK: tuple[tuple[str, tuple[Point, ...]], ...] = (
    ("#0a7360", ((7.2, 8.2), (12.6, 12.6), (9.4, 17.6))),
    ("#13957d", ((12.6, 12.6), (9.4, 17.6), (6.2, 22.4))),
    ("#c22f4a", ((7.2, 8.2), (12.6, 12.6), (11.6, 8.0))),
    ("#57d3b6", ((10.2, 10.4), (21.4, 2.0), (14.4, 13.4))),
    ("#2fb498", ((12.2, 12.4), (22.4, 8.8), (14.0, 15.4))),
    ("#0a7360", ((4.6, 6.6), (8.6, 5.6), (11.6, 8.0))),
    ("#0a7360", ((4.6, 6.6), (7.2, 8.2), (11.6, 8.0))),
    ("#14201c", ((0.8, 5.2), (5.4, 6.3), (5.0, 7.1))),
)
"""The bird, as (colour, triangle) from back to front."""


def rasterize(name: str, size: int, width: float = 1.8) -> NDArray[np.uint8]:
    """Coverage of an icon: uint8 [size, size], row 0 at the top.

    Args:
        name: a key of ``ICONS``.
        size: pixels along one side.
        width: of a stroke, in units of the grid of 24.
    """
    scale = size / UNIT
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) + np.float32(0.5)  # pixel centres
    nearest = np.full((size, size), np.inf, np.float32)
    for stroke in ICONS[name]:
        points = [(px * scale, py * scale) for px, py in stroke]
        for (x0, y0), (x1, y1) in itertools.pairwise(points):
            dx, dy = x1 - x0, y1 - y0
            along = ((x - x0) * dx + (y - y0) * dy) / max(dx * dx + dy * dy, 1e-9)
            along = np.clip(along, 0, 1)
            nearest = np.minimum(nearest, np.hypot(x - x0 - along * dx, y - y0 - along * dy))
    coverage = np.clip(width * scale / 2 - nearest + 0.5, 0, 1)
    alpha: NDArray[np.uint8] = (coverage * 255 + 0.5).astype(np.uint8)
    return alpha


def rasterize_mark(size: int, samples: int = 4) -> NDArray[np.uint8]:
    """The app's mark: uint8 [size, size, 4], straight alpha, each pixel from samples² points."""
    count = size * samples
    y, x = (np.mgrid[0:count, 0:count].astype(np.float32) + np.float32(0.5)) * (UNIT / count)
    colour = np.zeros((count, count, 4), np.float32)
    for code, (a, b, c) in MARK:
        inside = np.ones((count, count), bool)
        turn = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        for (x0, y0), (x1, y1) in ((a, b), (b, c), (c, a)):
            inside &= ((x1 - x0) * (y - y0) - (y1 - y0) * (x - x0)) * turn >= 0
        colour[inside] = [*(int(code[i : i + 2], 16) for i in (1, 3, 5)), 255]
    alpha = colour[..., 3:].reshape(size, samples, size, samples, 1).mean((1, 3))
    premultiplied = (colour * (colour[..., 3:] / 255)).reshape(size, samples, size, samples, 4)
    mixed = premultiplied.mean((1, 3)) / np.maximum(alpha / 255, 1e-6)
    mixed[..., 3:] = alpha
    pixels: NDArray[np.uint8] = (np.clip(mixed, 0, 255) + 0.5).astype(np.uint8)
    return pixels
