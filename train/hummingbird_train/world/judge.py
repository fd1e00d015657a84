"""The exact judge: reads shape, colour, size, motion and background off the pixels of one clip.

No learning. Its thresholds were fixed before the first diffusion run; any change of what it answers
raises JUDGE_VERSION, which every table prints. An attribute that it cannot decide is None, which
counts as wrong. Motion is read in ``judge_motion.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hummingbird_runtime.errors import InputError
from hummingbird_train.world.judge_motion import Track, judge_motion
from hummingbird_train.world.render import background_images, shape_distance
from hummingbird_train.world.scene import (
    BACKGROUNDS,
    COLOURS,
    MOTIONS,
    NOMINAL_RADII,
    PALETTE,
    SHAPES,
    SIZE,
    SIZES,
    check_tier,
)

JUDGE_VERSION = 1
ATTRIBUTES = ("shape", "colour", "size", "motion", "background")

BORDER = 4  # px, width of the frame's rim that tells the background
BACKGROUND_REJECT = 40.0  # mean RGB distance of the rim to the best background
OBJECT_CONTRAST = 45.0  # RGB distance to the background from which a pixel may be object
EDGE = 5  # px, reach of a background edge that was drawn soft
LEAST_AREA = 40  # px, smallest object
RIVAL = 0.3  # a second piece of this share of the largest makes a frame undecidable
PRESENCE = 0.6  # share of frames that must show exactly one object
COLOUR_REJECT = 70.0  # RGB distance of the object to the nearest palette colour
SHAPE_REJECT = 0.72  # mean overlap with the best template
LEAST_FRAMES = 5  # for motion

_GRID = 32  # templates and normalised masks are _GRID x _GRID
_SPAN = 1.0  # half width of the grid in units of sqrt(area)
_TURNS = 24  # template rotations over a full turn
_SHAPES = SHAPES[2]


@dataclass(frozen=True)
class Judgement:
    """What the judge read; None where it cannot decide."""

    shape: str | None
    colour: str | None
    size: str | None
    motion: str | None
    background: str | None


def judge(frames: NDArray[np.uint8], *, tier: int = 1) -> Judgement:
    """Read the five attributes of a clip from its pixels alone.

    Args:
        frames: uint8 [f, 64, 64, 3] RGB, evenly spaced over the whole clip; motion needs f >= 5.
        tier: tier of the world. The judge always looks for everything in tier 2, so a diagonal is
            no "left"; what tier 1 does not have becomes None.

    Returns:
        A Judgement. Without exactly one object in most frames only the background is decided.

    Raises:
        InputError: frames of another shape or type.
    """
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != (SIZE, SIZE, 3):
        raise InputError(
            "world.frames",
            f"frames not judgeable, got {frames.dtype} {list(frames.shape)}, "
            f"expected uint8 [f, {SIZE}, {SIZE}, 3]",
            hint="pass one clip of the tiny world, last axis RGB",
        )
    check_tier(tier)
    if not len(frames):
        return Judgement(None, None, None, None, None)
    pixels = frames.astype(np.float32)
    background, nearest = _judge_background(pixels)
    background = _within(BACKGROUNDS[tier], background)
    found = _find_object(pixels, nearest)
    if found is None:
        return Judgement(None, None, None, None, background)
    masks, paint, present = found
    track = _measure(masks, present)
    overlaps = _overlaps(masks, track)  # (f, shapes, turns)
    overlap = overlaps.max(axis=2).mean(axis=0)  # (shapes,)
    best = int(overlap.argmax())
    radius = float(np.exp(track.log_root_area.mean())) / _root_areas()[best]
    turn = overlaps[:, best].argmax(axis=1) * (2 * np.pi / _TURNS)  # (f,)
    motion = judge_motion(track, _SHAPES[best], turn) if len(frames) >= LEAST_FRAMES else None
    return Judgement(
        shape=_within(SHAPES[tier], _SHAPES[best] if overlap[best] >= SHAPE_REJECT else None),
        colour=_judge_colour(paint),
        size=_judge_size(radius),
        motion=_within(MOTIONS[tier], motion),
        background=background,
    )


def _within(names: tuple[str, ...], name: str | None) -> str | None:
    return name if name in names else None


def _judge_background(pixels: NDArray[np.float32]) -> tuple[str | None, int]:
    """Compare the rim's temporal median with every background: the name, and the nearest one."""
    rim = _rim()
    seen = np.median(pixels[:, rim], axis=0)  # (p, c)
    distance = np.linalg.norm(_backdrops()[:, rim] - seen, axis=2).mean(axis=1)  # (k,)
    nearest = int(distance.argmin())
    known = distance[nearest] <= BACKGROUND_REJECT
    return (tuple(background_images(SIZE))[nearest] if known else None), nearest


def _find_object(
    pixels: NDArray[np.float32], nearest: int
) -> tuple[NDArray[np.bool_], NDArray[np.float32], NDArray[np.int64]] | None:
    """Find the one object: masks [m, h, w], its RGB median [3], and the m frames that show it.

    A pixel is background as long as its colour lies near the line between the darkest and the
    brightest background colour around it, so that soft checker edges are not taken for objects.
    """
    low, span, span_squared = _edges()[nearest]
    offset = pixels - low
    share = np.clip(np.einsum("fhwc,hwc->fhw", offset, span) / span_squared, 0, 1)
    offset -= share[..., None] * span
    candidate = np.einsum("fhwc,fhwc->fhw", offset, offset) > OBJECT_CONTRAST**2
    rough, alone = _largest(candidate)
    core = _shrink(rough)
    paint = pixels[core if core.sum() >= LEAST_AREA else rough]
    if len(paint) < LEAST_AREA:
        return None
    paint = np.median(paint, axis=0)
    # A pixel belongs to the object where it is nearer to the paint than to the background, seen
    # along the line between the two: this puts the outline at half cover, whatever the contrast.
    backdrop = _backdrops()[nearest]  # (h, w, c)
    axis = paint - backdrop
    cover = np.einsum("fhwc,hwc->fhw", pixels - backdrop, axis)
    near = ~_shrink(~candidate)
    masks, clear = _largest((cover > 0.5 * np.einsum("hwc,hwc->hw", axis, axis)) & near)
    present = np.flatnonzero(clear & alone)
    if present.size < PRESENCE * len(pixels):
        return None
    return masks[present], paint, present


def _shrink(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Drop the pixels that touch the outside by an edge."""
    kept = masks.copy()
    kept[:, 1:] &= masks[:, :-1]
    kept[:, :-1] &= masks[:, 1:]
    kept[:, :, 1:] &= masks[:, :, :-1]
    kept[:, :, :-1] &= masks[:, :, 1:]
    return kept


def _largest(masks: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Keep the largest piece of each frame; tell which frames hold one clear object."""
    labels, count = ndimage.label(masks, _IN_PLANE)
    area = np.bincount(labels.ravel(), minlength=count + 1)
    frame = np.zeros(count + 1, np.int64)  # frame of each piece: pieces never cross frames
    where = np.flatnonzero(labels)
    frame[labels.ravel()[where]] = where // masks[0].size
    best = np.zeros(len(masks), np.int64)
    most = np.zeros(len(masks), np.int64)
    second = np.zeros(len(masks), np.int64)
    for piece in range(1, count + 1):
        f = frame[piece]
        if area[piece] > most[f]:
            best[f], most[f], second[f] = piece, area[piece], most[f]
        else:
            second[f] = max(second[f], area[piece])
    kept = (labels == best[:, None, None]) & (best > 0)[:, None, None]
    return kept, (most >= LEAST_AREA) & (second < RIVAL * most)


def _measure(masks: NDArray[np.bool_], present: NDArray[np.int64]) -> Track:
    """Areas and centroids of the masks."""
    area = masks.sum(axis=(1, 2)).astype(np.float64)
    pixel = np.arange(SIZE) + 0.5
    x = masks.sum(axis=1) @ pixel / area
    y = masks.sum(axis=2) @ pixel / area
    return Track(frame=present.astype(np.float64), x=x, y=y, log_root_area=np.log(area) / 2)


def _overlaps(masks: NDArray[np.bool_], track: Track) -> NDArray[np.float64]:
    """Overlap (Tanimoto) of each mask, centred and scaled to area 1, with every template."""
    unit = _grid()
    step = np.exp(track.log_root_area)[:, None] * unit  # (f, g) px
    row = track.y[:, None] + step - 0.5
    column = track.x[:, None] + step - 0.5
    shape = (len(masks), _GRID, _GRID)
    at = np.empty((3, *shape))
    at[0] = np.arange(len(masks))[:, None, None]
    at[1] = row[:, :, None]
    at[2] = column[:, None, :]
    seen = ndimage.map_coordinates(masks.astype(np.float32), at, order=1, cval=0.0)
    seen = seen.reshape(len(masks), -1).astype(np.float64)
    models = _templates()  # (shapes * turns, g * g)
    both: NDArray[np.float64] = seen @ models.T  # (f, shapes * turns)
    either = (seen**2).sum(axis=1)[:, None] + (models**2).sum(axis=1)[None] - both
    return np.asarray(both / either).reshape(len(masks), len(_SHAPES), _TURNS)


def _judge_colour(paint: NDArray[np.float32]) -> str | None:
    distance = np.linalg.norm(np.array([PALETTE[name] for name in COLOURS]) - paint, axis=1)
    nearest = int(distance.argmin())
    return COLOURS[nearest] if distance[nearest] <= COLOUR_REJECT else None


def _judge_size(radius: float) -> str:
    """The nearest size in log scale."""
    return SIZES[int(np.abs(np.log(np.array(NOMINAL_RADII) / radius)).argmin())]


@lru_cache(maxsize=1)
def _backdrops() -> NDArray[np.float32]:
    images = background_images(SIZE).values()
    return np.stack([image.transpose(1, 2, 0) for image in images])


@lru_cache(maxsize=1)
def _edges() -> list[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]]:
    """Darkest colour around each pixel, way to the brightest, its squared length, by background."""
    out = []
    for image in _backdrops():
        low = ndimage.minimum_filter(image, (EDGE, EDGE, 1))
        span = ndimage.maximum_filter(image, (EDGE, EDGE, 1)) - low
        out.append((low, span, np.maximum((span**2).sum(axis=2), 1e-6)))
    return out


@lru_cache(maxsize=1)
def _rim() -> NDArray[np.bool_]:
    rim = np.ones((SIZE, SIZE), bool)
    rim[BORDER:-BORDER, BORDER:-BORDER] = False
    return rim


def _grid() -> NDArray[np.float64]:
    """Centres of the grid's cells in units of sqrt(area)."""
    return ((np.arange(_GRID) + 0.5) / _GRID * 2 - 1) * _SPAN


@lru_cache(maxsize=1)
def _root_areas() -> NDArray[np.float64]:
    """Square root of each shape's area at radius 1."""
    fine = (np.arange(600) + 0.5) / 600 * 2.6 - 1.3
    u, v = (plane.astype(np.float32) for plane in np.meshgrid(fine, fine))
    inside = [np.mean(shape_distance(shape, u, v) < 0) for shape in _SHAPES]
    return np.sqrt(np.array(inside, np.float64) * 2.6**2)


@lru_cache(maxsize=1)
def _templates() -> NDArray[np.float64]:
    """Every shape at every turn, area 1 and centroid 0, as [shapes * turns, _GRID * _GRID]."""
    v, u = np.meshgrid(_grid(), _grid(), indexing="ij")
    out = []
    for shape, root_area in zip(_SHAPES, _root_areas(), strict=True):
        for turn in np.arange(_TURNS) * (2 * np.pi / _TURNS):
            a = (u * np.cos(turn) + v * np.sin(turn)) * root_area
            b = (v * np.cos(turn) - u * np.sin(turn)) * root_area
            distance = shape_distance(shape, a.astype(np.float32), b.astype(np.float32))
            cell = 2 * _SPAN / _GRID * root_area
            out.append(np.clip(0.5 - distance / cell, 0, 1).ravel())
    return np.array(out, np.float64)


_IN_PLANE = np.zeros((3, 3, 3), int)
_IN_PLANE[1] = ndimage.generate_binary_structure(2, 1)
