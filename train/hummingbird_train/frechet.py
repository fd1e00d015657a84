"""The Frechet distance between two sets of clips, on features of a learned judge.

Heusel et al. 2017, equation 6, with the judge of the tiny world in the place of Inception. The
value means nothing beside distances measured with other features or other numbers of clips.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from hummingbird_train.feedback.judge import Judge


def frechet_distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of features (n, d) and (m, d); >= 0.

    The trace of the root is taken from the eigenvalues of C_a^(1/2) C_b C_a^(1/2), which is
    symmetric, so a rank below d is no trouble.
    """
    gap = a.mean(axis=0) - b.mean(axis=0)
    c_a, c_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(c_a)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    between = np.sqrt(np.linalg.eigvalsh(root @ c_b @ root).clip(min=0)).sum()
    return max(0.0, float(gap @ gap + np.trace(c_a) + np.trace(c_b) - 2 * between))


@torch.no_grad()
def judge_features(judge: Judge, clips: Iterable[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """Features (n, d) of clips (f, 64, 64, 3): of evenly spaced frames, as the judge wants them."""
    rows = []
    for clip in clips:
        index = np.linspace(0, len(clip) - 1, judge.config.frames).round().astype(int)
        frames = torch.from_numpy(clip[index]).permute(0, 3, 1, 2).float()[None] / 255
        rows.append(judge.features(frames).double().numpy())
    return np.concatenate(rows)
