"""No-reference quality from natural scene statistics, compared with a model of pristine pictures.

Mean-subtracted contrast-normalised luma (Mittal et al. 2012/2013) follows generalised Gaussians in
clean pictures; their parameters at two scales make 36 features a patch. The distance of a clip's
patches to a fitted model follows NIQE's idea with our own model and form: it is not NIQE.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.atomic import atomic_file
from hummingbird_runtime.errors import InputError
from hummingbird_train.curation.clip import Clip
from hummingbird_train.curation.decode import Frames
from hummingbird_train.curation.stage import FramePlan, Scores, Stage
from hummingbird_train.curation.stages.model_file import file_sha256
from hummingbird_train.curation.stages.opencv import luma, opencv
from hummingbird_train.curation.stages.plans import STILLS

PATCH = 96  # pixels at the first scale
SIGMA = 7 / 6  # pixels, of the 7 x 7 window
SHARP = 0.75  # patches with this share of the sharpest one's contrast make a pristine model
FEATURES = 36
_LEAST = 1e-6  # variance below which a feature counts as constant
SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))  # neighbours whose products are described


@dataclass(frozen=True)
class PristineModel:
    """Mean [36] and variance [36] of the features of clean pictures."""

    mean: NDArray[np.float64]
    variance: NDArray[np.float64]

    def distance(self, features: NDArray[np.float64]) -> float:
        """Root mean square difference of patches [p, 36] from the model, in pooled deviations.

        Covariances between features are left out: a clip has too few patches to invert them.
        """
        pooled = (self.variance + features.var(axis=0)) / 2 + _LEAST
        return float(np.sqrt(((features.mean(axis=0) - self.mean) ** 2 / pooled).mean()))

    def save(self, path: Path) -> None:
        """Write as JSON."""
        table = {"mean": self.mean.tolist(), "variance": self.variance.tolist()}
        with atomic_file(path) as partial:
            partial.write_text(json.dumps(table), encoding="utf-8")


@dataclass(frozen=True)
class NaturalSceneStatistics(Stage):
    """Two parameters of the statistics, and with a model the distance from it."""

    name: ClassVar[str] = "nss"
    version: ClassVar[int] = 1
    needs: ClassVar[FramePlan] = STILLS
    after: ClassVar[tuple[str, ...]] = ()

    model: str = ""
    """JSON file of a PristineModel; empty: no distance."""

    def parameters(self) -> Mapping[str, object]:
        """The digest of the model's file: another model, other scores."""
        return {"model": file_sha256(self.model) if self.model else ""}

    def score(self, clip: Clip, frames: Frames, earlier: Mapping[str, Scores]) -> Scores:
        """Keys ``shape`` (2 for Gaussian), ``spread``; ``distance`` with a model, up is worse."""
        y = frames.derived(("luma", STILLS), lambda: luma(frames.of(STILLS)))
        features = np.concatenate([patch_features(picture)[0] for picture in y])
        scores = {"shape": float(features[:, 0].mean()), "spread": float(features[:, 1].mean())}
        if self.model:
            scores["distance"] = load_model(self.model).distance(features)
        return scores


def fit_model(pictures: Iterable[NDArray[np.uint8]]) -> PristineModel:
    """Fit a model to clean luma pictures [h, w], on their sharp patches.

    Raises:
        InputError: ``nss.pictures``: too few patches.
    """
    found = []
    for picture in pictures:
        features, contrast = patch_features(picture)
        found.append(features[contrast >= SHARP * contrast.max()])
    rows = np.concatenate(found) if found else np.empty((0, FEATURES))
    if len(rows) <= FEATURES:
        raise InputError(
            "nss.pictures",
            f"pristine model: got {len(rows)} patches, expected more than {FEATURES}",
            hint="give more or larger pictures",
        )
    return PristineModel(rows.mean(axis=0), rows.var(axis=0))


def patch_features(y: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Features and contrast of every patch of luma [h, w].

    Returns:
        float64 [p, 36]: at each of two scales shape and spread of the normalised luma, then shape,
        mean, left and right spread of its products with four neighbours (NIQE's order); and
        float64 [p]: mean local standard deviation. A picture under PATCH is one patch.
    """
    cv2 = opencv()
    picture = y.astype(np.float32)
    side = PATCH if min(y.shape) >= PATCH else 0
    height, width = (y.shape[0] // PATCH * PATCH, y.shape[1] // PATCH * PATCH) if side else y.shape
    picture = picture[:height, :width]
    parts, contrast = [], np.empty(0)
    for scale in (1, 2):
        normal, deviation = normalise(picture)
        if scale == 1:
            contrast = _patches(deviation, side).mean(axis=1)
        planes = [normal, *(normal * np.roll(normal, shift, axis=(0, 1)) for shift in SHIFTS)]
        for index, plane in enumerate(planes):
            shape, left, right, mean = fit_asymmetric(_patches(plane, side // scale))
            parts += [shape, (left + right) / 2] if not index else [shape, mean, left, right]
        half = (max(2, picture.shape[1] // 2), max(2, picture.shape[0] // 2))
        picture = cv2.resize(picture, half, interpolation=cv2.INTER_AREA)
    return np.stack(parts, axis=1), contrast


def normalise(picture: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean-subtracted contrast-normalised picture [h, w], and its local standard deviation."""
    cv2 = opencv()
    mean = cv2.GaussianBlur(picture, (7, 7), SIGMA, borderType=cv2.BORDER_REPLICATE)
    square = cv2.GaussianBlur(picture**2, (7, 7), SIGMA, borderType=cv2.BORDER_REPLICATE)
    deviation = np.sqrt(np.abs(square - mean**2))
    return (picture - mean) / (deviation + 1), deviation


def fit_asymmetric(values: NDArray[np.float32]) -> tuple[NDArray[np.float64], ...]:
    """Fit an asymmetric generalised Gaussian to each row of [p, n] by moments (Lasmar et al. 2009).

    Returns:
        shape, left spread, right spread, mean: float64 [p] each; the spreads are beta, not sigma.
    """
    from scipy.special import gamma

    below, above = (
        side.view(np.uint8).sum(axis=1, dtype=np.uint32) for side in (values < 0, values > 0)
    )
    negative = np.minimum(values, 0)
    square = np.einsum("pn,pn->p", values, values).astype(np.float64)
    square_left = np.einsum("pn,pn->p", negative, negative).astype(np.float64)
    tiny = 1e-12
    left = np.sqrt(square_left / np.maximum(below, 1)) + tiny
    right = np.sqrt(np.maximum(square - square_left, 0) / np.maximum(above, 1)) + tiny
    ratio = left / right
    moment = np.abs(values).mean(axis=1, dtype=np.float64) ** 2
    moment /= square / values.shape[1] + tiny
    moment *= (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shapes, table = _shape_table()
    shape = shapes[np.clip(np.searchsorted(table, moment), 0, len(shapes) - 1)]
    unit = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    left, right = left * unit, right * unit
    return shape, left, right, (right - left) * gamma(2 / shape) / gamma(1 / shape)


@lru_cache(maxsize=8)
def load_model(path: str) -> PristineModel:
    """Read a PristineModel.

    Raises:
        InputError: ``nss.model``.
    """
    try:
        table: Any = json.loads(Path(path).read_text(encoding="utf-8"))
        mean = np.array(table["mean"], np.float64)
        variance = np.array(table["variance"], np.float64)
        if mean.shape != (FEATURES,) or variance.shape != (FEATURES,) or not (variance >= 0).all():
            raise ValueError(f"shapes {mean.shape} and {variance.shape}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            "nss.model",
            f"{path}: got {error!r:.200}, expected mean [36] and variance [36] in JSON",
            hint="fit one: hummingbird_train.curation.stages.nss.fit_model",
        ) from error
    return PristineModel(mean, variance)


def _patches(plane: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Cut a plane into squares: [h, w] to [p, side * side]; side 0: one patch of all."""
    if not side:
        return plane.reshape(1, -1)
    rows, columns = plane.shape[0] // side, plane.shape[1] // side
    cut = plane[: rows * side, : columns * side].reshape(rows, side, columns, side)
    return cut.transpose(0, 2, 1, 3).reshape(rows * columns, side * side)


@lru_cache(maxsize=1)
def _shape_table() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shapes 0.2 .. 10 and gamma(2/a)^2 / (gamma(1/a) gamma(3/a)), which grows with a."""
    from scipy.special import gamma

    shapes = np.arange(0.2, 10.001, 0.001)
    return shapes, gamma(2 / shapes) ** 2 / (gamma(1 / shapes) * gamma(3 / shapes))
