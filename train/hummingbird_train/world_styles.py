"""Styles of the tiny world that its model never saw: the same scenes, drawn another way.

``neon`` draws the outline of an object as a glowing line on a darkened background. It is the
subject of the styles' demonstration: 20 clips teach it to a model that knows solid shapes only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.errors import UsageError
from hummingbird_train.world.grammar import caption
from hummingbird_train.world.render import background_images, shape_distance
from hummingbird_train.world.scene import FRAMES, PALETTE, SIZE, Scene, sample_scene, trajectory

STYLES = ("neon",)

_LINE = 2.0  # px, half width of the bright line
_GLOW = 4.0  # px, reach of the glow around it
_DIM = 0.22  # what is left of the background
_RIM = 4  # px of the frame's border that the background is read from
_CONTRAST = 60.0  # RGB distance from which a pixel is no background


def render_style(
    scenes: Sequence[Scene], frame_indices: Sequence[int], style: str = "neon"
) -> NDArray[np.uint8]:
    """Draw frames of scenes in a style.

    Args:
        scenes: n scenes.
        frame_indices: f frame numbers in [0, 25].
        style: one of ``STYLES``.

    Returns:
        uint8 [n, f, 64, 64, 3], RGB.

    Raises:
        UsageError: ``world.style``.
    """
    if style not in STYLES:
        raise UsageError(
            "world.style",
            f"style, got {style!r}, expected one of {', '.join(STYLES)}",
            hint="the world's own look is drawn by render()",
        )
    moments = np.asarray(frame_indices, dtype=np.float64) / (FRAMES - 1)
    xs, ys, radii, angles = trajectory(scenes, moments)  # (n, f)
    pixel = (np.arange(SIZE) + 0.5).astype(np.float32)
    backgrounds = background_images()
    out = np.empty((len(scenes), len(moments), SIZE, SIZE, 3), np.uint8)
    for i, scene in enumerate(scenes):
        colour = np.array(PALETTE[scene.colour], np.float32)[:, None, None]
        behind = backgrounds[scene.background] * np.float32(_DIM)  # (3, h, w)
        for j in range(len(moments)):
            radius, angle = radii[i, j], angles[i, j]
            u = ((pixel[None, :] - xs[i, j]) / radius).astype(np.float32)
            v = ((pixel[:, None] - ys[i, j]) / radius).astype(np.float32)
            u, v = np.broadcast_arrays(u, v)
            turned = u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)
            distance = shape_distance(scene.shape, *(part.astype(np.float32) for part in turned))
            # px from the line: the edge, or for a ring, which is an outline already, its band
            away = radius * (distance.clip(0) if scene.shape == "ring" else np.abs(distance))
            line = np.clip(_LINE + 0.5 - away, 0, 1)
            glow = 0.45 * np.exp(-0.5 * (away / _GLOW) ** 2)
            paint = behind + np.maximum(line, glow) * (colour - behind)
            out[i, j] = (paint + 0.5).clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
    return out


def write_style_clips(folder: Path, *, clips: int = 20, seed: int = 7, style: str = "neon") -> None:
    """Write clips of a style as a folder that the loader reads: ``NNN.npy`` and ``NNN.txt``.

    Args:
        folder: made when absent.
        clips: how many; scenes of tier 1, drawn with their captions from the seed.
        seed: of the scenes.
        style: one of ``STYLES``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([0x7374796C, seed])
    for number in range(clips):
        scene = sample_scene(rng)
        np.save(folder / f"{number:03d}.npy", render_style([scene], range(FRAMES), style)[0])
        text = caption(scene, rng)
        (folder / f"{number:03d}.txt").write_text(text + "\n", encoding="utf-8")


def hollowness(frames: NDArray[np.uint8]) -> float:
    """How much of the objects' silhouettes is empty: near 0 for solid shapes, high for outlines.

    Args:
        frames: uint8 [f, 64, 64, 3].

    Returns:
        Mean over frames of 1 - object area / area with its holes filled; NaN where no frame shows
        an object of 30 pixels.
    """
    from scipy import ndimage

    found = []
    for frame in frames.astype(np.float32):
        objects = np.abs(frame - _behind(frame)).max(-1) > _CONTRAST
        filled = ndimage.binary_fill_holes(objects)
        if filled.sum() >= 30:
            found.append(1 - objects.sum() / filled.sum())
    return float(np.mean(found)) if found else float("nan")


def object_colour(frames: NDArray[np.uint8]) -> str | None:
    """The palette's colour that the objects have, by direction in RGB: glow and dimming keep it.

    Args:
        frames: uint8 [f, 64, 64, 3].

    Returns:
        A name of ``PALETTE``; None where no frame shows an object of 30 pixels.
    """
    votes: dict[str, int] = {}
    names = list(PALETTE)
    palette = np.array([PALETTE[name] for name in names], np.float32)
    palette /= np.linalg.norm(palette, axis=1, keepdims=True)
    for frame in frames.astype(np.float32):
        pixels = frame[np.abs(frame - _behind(frame)).max(-1) > _CONTRAST]
        if len(pixels) < 30:
            continue
        spread = pixels.max(-1) - pixels.min(-1)
        mean = pixels[spread >= np.quantile(spread, 0.5)].mean(0)
        name = names[int(np.argmax(palette @ mean))]
        votes[name] = votes.get(name, 0) + 1
    return max(votes, key=lambda name: votes[name]) if votes else None


def darkness(frames: NDArray[np.uint8]) -> float:
    """1 - mean brightness of the frames' rims: 0 for white, 1 for black backgrounds."""
    return float(1 - np.mean([_rim(frame).mean() for frame in frames]) / 255)


def _rim(frame: NDArray[np.generic]) -> NDArray[np.generic]:
    inner = np.ones(frame.shape[:2], bool)
    inner[_RIM:-_RIM, _RIM:-_RIM] = False
    return frame[inner]


def _behind(frame: NDArray[np.float32]) -> NDArray[np.float32]:
    """The world's background, at full or dimmed light, that fits the frame's rim best."""
    images = [image.transpose(1, 2, 0) for image in background_images().values()]
    candidates = [image * light for image in images for light in (1.0, _DIM)]
    rim = _rim(frame)
    return min(candidates, key=lambda image: float(np.abs(_rim(image) - rim).mean()))
