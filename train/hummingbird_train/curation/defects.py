"""Clips of the tiny world with one known fault each, as real H.264 files.

The world's pictures are enlarged to 192 pixels, given a texture on the background and a little live
grain, spoiled mildly or strongly, and encoded. What a measurement of the fault is worth is then a
matter of counting. Everything follows from (seed, number of the clip).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.cli.verbs import missing_extra
from hummingbird_runtime.errors import UsageError
from hummingbird_train.curation.stages.opencv import opencv
from hummingbird_train.world.grammar import caption
from hummingbird_train.world.render import background_images, render
from hummingbird_train.world.scene import (
    BACKGROUNDS,
    COLOURS,
    DIRECTIONS,
    FPS,
    FRAMES,
    MOTIONS,
    SHAPES,
    SIZES,
    Scene,
    place,
    sample_scene,
)

SIDE = 192  # pixels
TEXTURE = 6.0  # grey levels, standard deviation of the background's pattern
GRAIN = 1.5  # grey levels, standard deviation of what changes with every frame
CRF = 18  # of x264, for every clip
SEVERITIES = ("mild", "strong")
CLEAN_SHARE = 0.4  # of a corpus
WORDS = (
    "PREVIEW",
    "SAMPLE CLIP",
    "breaking news",
    "www.example.com",
    "episode twelve",
    "subscribe",
)

# Faults and what is done at (mild, strong).
DEFECTS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "noise": (8.0, 25.0),  # grey levels, standard deviation
        "blur": (1.5, 4.0),  # pixels, standard deviation
        "blocks": (14, 4),  # JPEG quality, 8 x 8 blocks
        "static": (0.12, 0.0),  # share of the object's motion that is left
        "hard_cut": (1, 0),  # whether the background stays the same colour
        "dolly_zoom": (1.25, 1.6),  # scale of the background over the clip; the object keeps its
        "text_overlay": (1, 2),  # lines; one is a small, half transparent mark in a corner
        "duplicate": (1, 0),  # whether the copy is cropped, scaled and lightened
        "dark": (0.45, 0.2),  # share of the light that is left
        "wrong_caption": (1, 5),  # attributes of the caption that are wrong
    }
)

Pixels = NDArray[np.float32]


@dataclass(frozen=True)
class Specimen:
    """One clip of the corpus."""

    number: int
    defect: str
    """a key of DEFECTS, or "" for a clean clip."""
    severity: str
    """"mild", "strong", or "" for a clean clip."""
    source: int = -1
    """number of the clean clip that a duplicate copies."""


def plan_corpus(clips: int) -> list[Specimen]:
    """Share out a corpus: CLEAN_SHARE of it clean, the rest evenly over faults and severities.

    Raises:
        UsageError: ``defects.clips`` for fewer than 100.
    """
    if clips < 100:
        raise UsageError(
            "defects.clips",
            f"corpus of defects: got {clips} clips, expected at least 100",
            hint="2000 give intervals that are narrow enough",
        )
    clean = int(clips * CLEAN_SHARE)
    kinds = [(defect, severity) for defect in DEFECTS for severity in SEVERITIES]
    corpus = [Specimen(number, "", "") for number in range(clean)]
    copies = 0
    for number in range(clean, clips):
        defect, severity = kinds[(number - clean) % len(kinds)]
        if defect == "duplicate":
            corpus.append(Specimen(number, defect, severity, copies % clean))
            copies += 1
        else:
            corpus.append(Specimen(number, defect, severity))
    return corpus


def make_specimen(specimen: Specimen, seed: int) -> tuple[NDArray[np.uint8], str]:
    """Draw a clip and spoil it.

    Returns:
        uint8 [26, 192, 192, 3] RGB, and its caption.
    """
    if specimen.defect == "duplicate":
        frames, text = make_specimen(Specimen(specimen.source, "", ""), seed)
        return _copy(frames) if specimen.severity == "mild" else frames, text
    rng = np.random.default_rng([seed, specimen.number])
    scene = sample_moving(rng)
    how = 0.0
    if specimen.defect:
        how = DEFECTS[specimen.defect][SEVERITIES.index(specimen.severity)]
    text = caption(scene, rng)
    if specimen.defect == "wrong_caption":
        text = caption(other_scene(scene, int(how), rng), rng)
    if specimen.defect == "static":
        scene = slow_down(scene, how)
    zoom = how if specimen.defect == "dolly_zoom" else 1.0
    frames = draw(scene, rng, zoom)
    if specimen.defect == "hard_cut":
        later = draw(_after_cut(scene, bool(how), rng), rng)
        frames[FRAMES // 2 :] = later[FRAMES // 2 :]
    frames = spoil(frames, specimen.defect, how, rng)
    frames += np.float32(GRAIN) * rng.standard_normal(frames.shape, np.float32)
    return np.clip(frames + 0.5, 0, 255).astype(np.uint8), text


def sample_moving(rng: np.random.Generator) -> Scene:
    """A scene of tier 1 whose object moves: one that stands still would be static by itself."""
    while True:
        scene = sample_scene(rng)
        if scene.motion != "still":
            return scene


def slow_down(scene: Scene, share: float) -> Scene:
    """The scene with a share of its motion; 0 stands still."""
    if scene.motion in DIRECTIONS:
        return replace(scene, amount=scene.amount * share)
    return replace(scene, amount=scene.amount**share)


def other_scene(scene: Scene, wrong: int, rng: np.random.Generator) -> Scene:
    """A scene that differs in that many of shape, colour, size, motion and background."""
    moving = tuple(motion for motion in MOTIONS[1] if motion != "still")
    choices = {
        "shape": SHAPES[1], "colour": COLOURS, "size": SIZES, "motion": moving,
        "background": BACKGROUNDS[1],
    }  # fmt: skip
    facts = {name: getattr(scene, name) for name in choices}
    for name in rng.permutation(list(choices))[:wrong].tolist():
        others = [value for value in choices[name] if value != facts[name]]
        facts[name] = others[int(rng.integers(len(others)))]
    return place(rng, **facts, tier=1)


def draw(scene: Scene, rng: np.random.Generator, zoom: float = 1.0) -> Pixels:
    """Draw a scene on a textured background: float32 [26, 192, 192, 3], 0..255.

    Args:
        scene: what to draw.
        rng: draws the texture.
        zoom: scale of the background at the end of the clip, 1 at its start; the object does not
            follow, which is what a dolly zoom looks like.
    """
    cv2 = opencv()
    drawn = render([scene], range(FRAMES), SIDE)[0].astype(np.float32)
    plain = background_images(SIDE)[scene.background].transpose(1, 2, 0)  # (h, w, 3)
    pattern = sum(
        cv2.GaussianBlur(rng.normal(0, 1, (SIDE, SIDE)).astype(np.float32), (0, 0), sigma)
        * np.float32(2 * np.pi**0.5 * sigma)
        for sigma in (1.5, 3.0, 6.0)
    )
    textured = np.clip(plain + TEXTURE / 3**0.5 * pattern[..., None], 0, 255)
    for k, frame in enumerate(drawn):
        ground = np.clip(1 - np.abs(frame - plain).max(axis=2, keepdims=True) / 24, 0, 1)
        scale = zoom ** (k / (FRAMES - 1))
        rest = (1 - scale) * (SIDE - 1) / 2  # the middle stays where it is
        at = np.array([[scale, 0, rest], [0, scale, rest]])
        behind = textured
        if zoom != 1.0:
            behind = cv2.warpAffine(textured, at, (SIDE, SIDE), flags=cv2.INTER_LINEAR)
        drawn[k] = frame * (1 - ground) + behind * ground
    return drawn


def spoil(frames: Pixels, defect: str, how: float, rng: np.random.Generator) -> Pixels:
    """Do to the pixels what a fault of DEFECTS does; faults of other kinds leave them alone.

    Args:
        frames: float32 [f, h, w, 3], 0..255.
        defect: a key of DEFECTS or "".
        how: its value there.
        rng: draws noise, words and places.
    """
    cv2 = opencv()
    if defect == "noise":
        return frames + rng.normal(0, how, frames.shape).astype(np.float32)
    if defect == "blur":
        return np.stack([cv2.GaussianBlur(frame, (0, 0), how) for frame in frames])
    if defect == "dark":
        return frames * np.float32(how)
    if defect == "blocks":
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(how)]
        coded = [cv2.imencode(".jpg", _bytes(frame), quality)[1] for frame in frames]
        return np.stack([cv2.imdecode(data, cv2.IMREAD_COLOR) for data in coded]).astype(np.float32)
    if defect == "text_overlay":
        outline, letters = _letters(int(how), rng)
        return frames * (1 - outline) * (1 - letters) + 255 * letters
    return frames


def write_h264(path: Path, frames: NDArray[np.uint8], fps: int = FPS, crf: int = CRF) -> None:
    """Encode RGB frames uint8 [f, h, w, 3] as H.264 in MP4, on one thread.

    Raises:
        ResourceError: ``extra.missing``.
    """
    try:
        import av
    except ModuleNotFoundError as error:
        raise missing_extra("writing clips", "av", "video") from error
    options = {"crf": str(crf), "preset": "veryfast", "threads": "1"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _after_cut(scene: Scene, same_ground: bool, rng: np.random.Generator) -> Scene:
    later = other_scene(scene, 5, rng)
    if not same_ground:
        return later
    facts = {name: getattr(later, name) for name in ("shape", "colour", "size", "motion")}
    return place(rng, **facts, background=scene.background, tier=1)


def _copy(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What a copy goes through on its way: cropped by a few pixels, made smaller, made lighter."""
    cv2 = opencv()
    kept = frames[:, 3:-3, 3:-3]
    small = [cv2.resize(frame, (160, 160), interpolation=cv2.INTER_AREA) for frame in kept]
    back = np.stack([cv2.resize(frame, (SIDE, SIDE)) for frame in small]).astype(np.float32)
    return np.clip(back * 1.04 + 2, 0, 255).astype(np.uint8)


def _letters(lines: int, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
    """Cover of the dark outline and of the white letters, float32 [h, w, 1] in 0..1 each."""
    cv2 = opencv()
    letters = np.zeros((SIDE, SIDE), np.uint8)
    font, small = cv2.FONT_HERSHEY_SIMPLEX, lines == 1
    scale, weight, cover = (0.45, 1, 190) if small else (0.7, 2, 255)
    for line in range(lines):
        word = WORDS[int(rng.integers(len(WORDS)))]
        (width, height), _ = cv2.getTextSize(word, font, scale, weight)
        x = int(rng.integers(4, max(5, SIDE - width - 4)))
        top = small and bool(rng.integers(2))
        at = x, height + 6 if top else SIDE - 10 - line * (height + 12)
        cv2.putText(letters, word, at, font, scale, cover, weight, cv2.LINE_AA)
    outline = cv2.dilate(letters, np.ones((3, 3), np.uint8))
    return tuple(layer[..., None].astype(np.float32) / 255 for layer in (outline, letters))


def _bytes(frame: Pixels) -> NDArray[np.uint8]:
    return np.clip(frame + 0.5, 0, 255).astype(np.uint8)
