"""The tiny world's attributes, how a scene is drawn from them, and where its object is.

Frozen so that nobody can buy accuracy with an easier world: 64x64 pixels, 26 frames, one object.
Tier 1 carries the accuracy gates; tier 2 (more shapes, motions, backgrounds, smaller objects) is
printed beside it. Pixels are made in ``render.py``, words in ``grammar.py``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hummingbird_runtime.errors import UsageError

WORLD_VERSION = 1
SIZE = 64  # pixels, width and height
FRAMES = 26  # per clip; 3.25 s at FPS
FPS = 8

PALETTE = MappingProxyType(
    {
        "red": (226, 36, 44),
        "orange": (250, 136, 20),
        "yellow": (250, 222, 48),
        "green": (36, 170, 68),
        "cyan": (24, 206, 212),
        "blue": (38, 70, 226),
        "purple": (132, 38, 190),
        "pink": (250, 120, 190),
    }
)
COLOURS = tuple(PALETTE)
SIZES = ("small", "medium", "large")
SHAPES = MappingProxyType(
    {
        1: ("circle", "square", "triangle", "ring", "heart"),
        2: ("circle", "square", "triangle", "ring", "heart", "star"),
    }
)
DIRECTIONS = MappingProxyType(
    {
        "left": (-1.0, 0.0),
        "right": (1.0, 0.0),
        "up": (0.0, -1.0),
        "down": (0.0, 1.0),
        "up-left": (-(0.5**0.5), -(0.5**0.5)),
        "up-right": (0.5**0.5, -(0.5**0.5)),
        "down-left": (-(0.5**0.5), 0.5**0.5),
        "down-right": (0.5**0.5, 0.5**0.5),
    }
)
MOTIONS = MappingProxyType(
    {
        1: ("still", "left", "right", "up", "down", "growing", "shrinking"),
        2: ("still", *DIRECTIONS, "growing", "shrinking", "circling", "bouncing", "spinning"),
    }
)
BACKGROUNDS = MappingProxyType(
    {
        1: ("black", "white", "grey", "sky", "checker"),
        2: ("black", "white", "grey", "sky", "checker", "stripes", "sunset"),
    }
)
NOMINAL_RADII = (10.0, 14.0, 18.0)  # px, in SIZES order; the judge answers with the nearest
RADII = MappingProxyType(  # px, drawn from these ranges; a word means the same in both tiers
    {
        1: ((9.5, 10.5), (13.3, 14.7), (17.1, 18.9)),
        2: ((7.0, 10.5), (13.3, 14.7), (17.1, 18.9)),
    }
)
SPLITS = ("train", "held_out")
SPINNING_SHAPES = frozenset({"square", "triangle", "heart", "star"})  # a spun circle looks still

# Reach of each shape from its centroid in units of the radius: left = right, up, down.
REACH = MappingProxyType(
    {
        "circle": (1.0, 1.0, 1.0),
        "square": (0.9, 0.9, 0.9),
        "triangle": (1.093, 1.247, 0.674),
        "ring": (1.0, 1.0, 1.0),
        "heart": (1.03, 0.762, 1.119),
        "star": (1.094, 1.15, 0.931),
    }
)
ROUND_REACH = MappingProxyType({"square": 1.24, "triangle": 1.25, "heart": 1.12, "star": 1.15})

_MARGIN = 1.5  # px kept free between the object and the frame's edge
_WANDER = 10.0  # px, how far from the middle of the frame a clip's middle position may lie
_TRAVEL = (20.0, 26.0)  # px over the clip; large objects take what room there is (never under 18)
_RATIO = (1.8, 2.2)  # last radius / first radius of a growing object
_ORBIT = (8.0, 11.0)  # px, radius of the circle that a circling object runs once
_HOP = (14.0, 18.0)  # px, height of each of the two hops of a bouncing object
_SPIN = 2.0 * np.pi / 3.0  # rad over the clip: five evenly spaced frames still tell the angle


@dataclass(frozen=True)
class Scene:
    """One clip of the world: five attributes and the numbers that place the object."""

    shape: str
    colour: str
    size: str
    motion: str
    background: str
    tier: int
    x: float
    """px, centroid in the middle of the clip (circling: centre of the orbit; bouncing: ground)."""
    y: float
    """px, downwards."""
    radius: float
    """px, geometric mean over the clip."""
    amount: float = 0.0
    """px of travel, orbit radius or hop height; ratio of radii when growing or shrinking; rad."""
    phase: float = 0.0
    """rad, where on its orbit a circling object starts."""


def is_held_out(shape: str, colour: str, motion: str) -> bool:
    """Tell whether a (shape, colour, motion) triple belongs to the 5 % that training never sees.

    The salt was chosen before any training so that tier 1 loses exactly 14 of its 280 triples,
    from every shape, every motion and at least seven colours.
    """
    digest = hashlib.sha256(f"hummingbird-world-1854/{shape}/{colour}/{motion}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % 10_000 < 500


def triples(*, tier: int = 1, split: str = "train") -> list[tuple[str, str, str]]:
    """List every (shape, colour, motion) of one split, in a stable order."""
    check_tier(tier)
    _check_split(split)
    return [
        (shape, colour, motion)
        for shape in SHAPES[tier]
        for colour in COLOURS
        for motion in MOTIONS[tier]
        if (motion != "spinning" or shape in SPINNING_SHAPES)
        and is_held_out(shape, colour, motion) == (split == "held_out")
    ]


def sample_scene(rng: np.random.Generator, *, tier: int = 1, split: str = "train") -> Scene:
    """Draw one scene: attributes uniform over the split, placement uniform over what fits.

    Args:
        rng: the only source of randomness.
        tier: 1 or 2.
        split: ``"train"`` or ``"held_out"`` (triples that ``is_held_out`` keeps from training).

    Raises:
        UsageError: an unknown tier or split.
    """
    check_tier(tier)
    _check_split(split)
    while True:
        shape = _pick(rng, SHAPES[tier])
        colour = _pick(rng, COLOURS)
        motion = _pick(rng, MOTIONS[tier])
        if motion == "spinning" and shape not in SPINNING_SHAPES:
            continue
        if is_held_out(shape, colour, motion) == (split == "held_out"):
            break
    return place(
        rng,
        shape=shape,
        colour=colour,
        size=_pick(rng, SIZES),
        motion=motion,
        background=_pick(rng, BACKGROUNDS[tier]),
        tier=tier,
    )


def place(
    rng: np.random.Generator,
    *,
    shape: str,
    colour: str,
    size: str,
    motion: str,
    background: str,
    tier: int = 1,
) -> Scene:
    """Draw the placement of a scene with given attributes; the object stays inside the frame."""
    check_tier(tier)
    for what, value, known in (
        ("shape", shape, SHAPES[tier]),
        ("colour", colour, COLOURS),
        ("size", size, SIZES),
        ("motion", motion, MOTIONS[tier]),
        ("background", background, BACKGROUNDS[tier]),
    ):
        if value not in known:
            raise UsageError(
                "world.attribute",
                f"unknown {what} of tier {tier}, got {value!r}, expected one of {', '.join(known)}",
                hint="see hummingbird_train.world.scene",
            )
    radius = rng.uniform(*RADII[tier][SIZES.index(size)])
    side, up, down = REACH[shape]
    if motion == "spinning":
        side = up = down = ROUND_REACH[shape]
    amount, phase, widest = 0.0, 0.0, radius
    sweep_x = sweep_up = sweep_down = 0.0  # px that the centroid leaves (x, y) by
    if motion in ("growing", "shrinking"):
        amount = rng.uniform(*_RATIO)
        widest = radius * np.sqrt(amount)
    room_x = SIZE - 2 * _MARGIN - 2 * side * widest
    room_y = SIZE - 2 * _MARGIN - (up + down) * widest
    if motion in DIRECTIONS:
        dx, dy = (abs(part) for part in DIRECTIONS[motion])
        room = min(room_x / dx if dx else np.inf, room_y / dy if dy else np.inf)
        amount = min(rng.uniform(*_TRAVEL), room)
        sweep_x, sweep_up = dx * amount / 2, dy * amount / 2
        sweep_down = sweep_up
    elif motion == "circling":
        amount = min(rng.uniform(*_ORBIT), room_x / 2, room_y / 2)
        phase = rng.uniform(0, 2 * np.pi)
        sweep_x = sweep_up = sweep_down = amount
    elif motion == "bouncing":
        amount = min(rng.uniform(*_HOP), room_y)
        sweep_up = amount
    elif motion == "spinning":
        amount = _SPIN
    x = _within(rng, _MARGIN + side * widest + sweep_x, SIZE - _MARGIN - side * widest - sweep_x)
    y = _within(rng, _MARGIN + up * widest + sweep_up, SIZE - _MARGIN - down * widest - sweep_down)
    return Scene(
        shape, colour, size, motion, background, tier, x, y, float(radius), float(amount), phase
    )


def trajectory(
    scenes: Sequence[Scene], moments: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Place the objects of scenes at moments of the clip.

    Args:
        scenes: n scenes.
        moments: [f] in [0, 1]; 0 is the first frame, 1 the last.

    Returns:
        centroid x and y (px, y downwards), radius (px) and angle (rad), each [n, f].
    """
    t = np.asarray(moments, dtype=np.float64)  # (f,)
    x = np.array([[scene.x] for scene in scenes]) + np.zeros_like(t)  # (n, f)
    y = np.array([[scene.y] for scene in scenes]) + np.zeros_like(t)
    radius = np.array([[scene.radius] for scene in scenes]) + np.zeros_like(t)
    angle = np.zeros_like(x)
    for i, scene in enumerate(scenes):
        if scene.motion in DIRECTIONS:
            dx, dy = DIRECTIONS[scene.motion]
            x[i] += dx * scene.amount * (t - 0.5)
            y[i] += dy * scene.amount * (t - 0.5)
        elif scene.motion in ("growing", "shrinking"):
            sign = 1.0 if scene.motion == "growing" else -1.0
            radius[i] *= scene.amount ** (sign * (t - 0.5))
        elif scene.motion == "circling":
            x[i] += scene.amount * np.cos(scene.phase + 2 * np.pi * t)
            y[i] += scene.amount * np.sin(scene.phase + 2 * np.pi * t)
        elif scene.motion == "bouncing":
            y[i] -= scene.amount * np.abs(np.sin(2 * np.pi * t))
        elif scene.motion == "spinning":
            angle[i] = scene.amount * t
    return x, y, radius, angle


def _within(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a coordinate from [low, high], no further than _WANDER from the middle of the frame."""
    if low > high:  # the travel took all the room there is, up to rounding
        return (low + high) / 2
    middle = min(max(SIZE / 2, low), high)
    return float(rng.uniform(max(low, middle - _WANDER), min(high, middle + _WANDER)))


def _pick(rng: np.random.Generator, names: Sequence[str]) -> str:
    return names[int(rng.integers(len(names)))]


def check_tier(tier: int) -> None:
    """Raise UsageError unless the tier exists."""
    if tier not in SHAPES:
        raise UsageError(
            "world.tier", f"unknown tier, got {tier!r}, expected 1 or 2", hint="pass tier=1"
        )


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise UsageError(
            "world.split",
            f"unknown split, got {split!r}, expected one of {', '.join(SPLITS)}",
            hint='pass split="train"',
        )
