"""`hummingbird curate defects`: how well each stage tells its fault from clean clips.

The area under the ROC curve (chance that a spoiled clip scores worse than a clean one) of each
fault's own stage, at both severities, on a corpus of known faults.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike

from hummingbird_runtime.cli.parser import Parser, number_in
from hummingbird_train.curation.clip import make_clip
from hummingbird_train.curation.decode import decode, score_clip
from hummingbird_train.curation.defects import (
    DEFECTS,
    SEVERITIES,
    Specimen,
    make_specimen,
    plan_corpus,
    write_h264,
)
from hummingbird_train.curation.stage import FramePlan, Score, Stage, build_stages
from hummingbird_train.curation.stages.fingerprint import nearest
from hummingbird_train.curation.stages.nss import fit_model
from hummingbird_train.curation.stages.opencv import luma

# The measurement that is to find each fault, and +1 where more of it is worse.
DETECTORS: Mapping[str, tuple[str, str, int]] = MappingProxyType(
    {
        "noise": ("noise", "sigma", 1),
        "blur": ("sharpness", "blur", 1),
        "blocks": ("blockiness", "grid", 1),
        "static": ("motion", "top", -1),
        "hard_cut": ("shots", "ratio", 1),
        "dolly_zoom": ("camera", "zoom", 1),
        "text_overlay": ("text", "area", 1),
        "duplicate": ("fingerprint", "hash", -1),
        "dark": ("exposure", "peak", -1),
        "wrong_caption": ("caption_match", "match", -1),
    }
)
GOALS = MappingProxyType({"mild": 0.90, "strong": 0.97})
MODEL_PLAN = FramePlan(max_frames=16)  # frames of each clean clip that the model is fitted on
PAIR_STAGES = ("sharpness", "blockiness", "noise", "nss")


@dataclass(frozen=True)
class Detection:
    """One row of the table."""

    defect: str
    severity: str
    measure: str
    auc: float
    low: float
    """of the 95 % interval (Hanley and McNeil 1982)."""
    high: float
    spoiled: int
    clean: int

    @property
    def reached(self) -> bool:
        """Whether the goal for this severity is met."""
        return self.auc >= GOALS[self.severity]


def main(argv: list[str]) -> int:
    """The verb; prints Markdown, or JSON lines."""
    parser = Parser(
        prog="hummingbird curate defects",
        description="Measure how well each stage tells its fault from clean clips.",
    )
    add = parser.add_argument
    add("--clips", type=number_in(100, 100_000), default=2000, metavar="N",
        help="size of the corpus (default %(default)s)")  # fmt: skip
    add("--seed", type=number_in(0, 2**32), default=0, metavar="N", help="of the corpus")
    add("--processes", type=number_in(1, 256), default=2, metavar="N",
        help="clips at once (default %(default)s)")  # fmt: skip
    add("--pair", nargs=2, type=Path, metavar=("PRISTINE", "DISTORTED"),
        help="compare two versions of one real clip instead")  # fmt: skip
    add("--clean", nargs="+", type=Path, default=(), metavar="FILE",
        help="with --pair: other clean clips to compare statistics with")  # fmt: skip
    add("--json", action="store_true", help="one JSON object a row")
    parsed = parser.parse(argv)
    if parsed.pair:
        rows = [dict(zip(("measure", "pristine", "distorted", "ranked"), row, strict=True))
                for row in compare_pair(*parsed.pair, parsed.clean)]  # fmt: skip
        print(_lines(rows, parsed.json))
        return 0
    found = detect(parsed.clips, parsed.seed, parsed.processes)
    rows = [
        {
            "defect": row.defect,
            "severity": row.severity,
            "measure": row.measure,
            "AUC": round(row.auc, 4),
            "interval": f"{row.low:.3f}-{row.high:.3f}",
            "clips": f"{row.spoiled} / {row.clean}",
            "goal": GOALS[row.severity],
            "reached": "yes" if row.reached else "no",
        }
        for row in found
    ]
    print(_lines(rows, parsed.json))
    return 0 if all(row.reached for row in found) else 6


def detect(clips: int, seed: int, processes: int = 1) -> list[Detection]:
    """Make the corpus, measure it, and count; the same for the same clips and seed."""
    corpus = plan_corpus(clips)
    jobs = [(specimen, seed) for specimen in corpus]
    if processes == 1:
        measured = [_measure(job) for job in jobs]
    else:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            measured = list(pool.map(_measure, jobs, chunksize=8))
    return [row for defect in DEFECTS for row in _rows(defect, corpus, measured)]


def area_under_curve(spoiled: ArrayLike, clean: ArrayLike) -> float:
    """Chance that a spoiled value exceeds a clean one, ties counting half (Mann and Whitney)."""
    high, low = np.asarray(spoiled, np.float64), np.sort(np.asarray(clean, np.float64))
    below = np.searchsorted(low, high, "left") + np.searchsorted(low, high, "right")
    return float(below.mean() / (2 * low.size))


def interval(auc: float, spoiled: int, clean: int) -> tuple[float, float]:
    """95 % interval of an area under the curve (Hanley and McNeil 1982)."""
    q_1, q_2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    spread = auc * (1 - auc) + (spoiled - 1) * (q_1 - auc**2) + (clean - 1) * (q_2 - auc**2)
    half = 1.96 * float(np.sqrt(max(0.0, spread) / (spoiled * clean)))
    return max(0.0, auc - half), min(1.0, auc + half)


def compare_pair(
    pristine: Path, distorted: Path, clean: Sequence[Path] = ()
) -> list[tuple[str, float, float, str]]:
    """Quality measures of two versions of a clip: (measure, pristine, distorted, yes or no).

    The verdict is yes where the measure ranks the pristine one as better.

    Args:
        pristine: the clip as it was.
        distorted: the same clip, worse.
        clean: other clips, to fit the model of natural scene statistics on; none: no distance.
    """
    table: dict[str, dict[str, object]] = {name: {} for name in PAIR_STAGES}
    with tempfile.TemporaryDirectory() as folder:
        if clean:
            model = Path(folder, "model.json")
            views = [decode(make_clip(path), [MODEL_PLAN]).of(MODEL_PLAN) for path in clean]
            fit_model(picture for view in views for picture in luma(view)).save(model)
            table["nss"]["model"] = str(model)
        stages = build_stages(table)
        good, bad = (score_clip(make_clip(path), stages) for path in (pristine, distorted))
    signs = {(stage, key): sign for stage, key, sign in DETECTORS.values()}
    signs |= {
        ("sharpness", "laplacian"): -1,
        ("sharpness", "tenengrad"): -1,
        ("nss", "distance"): 1,
    }
    rows = []
    for stage in PAIR_STAGES:
        for key, value in good[stage].items():
            if (stage, key) in signs:
                a, b = float(value), float(bad[stage][key])
                right = signs[stage, key] * (b - a) > 0
                rows.append((f"{stage}.{key}", round(a, 4), round(b, 4), "yes" if right else "no"))
    return rows


def _measure(job: tuple[Specimen, int]) -> dict[str, Score]:
    """Scores of one clip by fault: its own fault's, or all of a clean clip's."""
    specimen, seed = job
    wanted = [specimen.defect] if specimen.defect else list(DETECTORS)
    frames, text = make_specimen(specimen, seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{specimen.number}.mp4")
        write_h264(path, frames)
        scores = score_clip(make_clip(path, caption=text), _stages(wanted))
    return {defect: scores[DETECTORS[defect][0]][DETECTORS[defect][1]] for defect in wanted}


def _stages(defects: Sequence[str]) -> list[Stage]:
    return build_stages({DETECTORS[defect][0]: {} for defect in defects})


def _rows(
    defect: str, corpus: Sequence[Specimen], measured: Sequence[Mapping[str, Score]]
) -> list[Detection]:
    stage, key, sign = DETECTORS[defect]
    judged = [number for number, scores in enumerate(measured) if defect in scores]
    if defect == "duplicate":
        distances = nearest([str(measured[number][defect]) for number in judged])
        values = dict(zip(judged, distances.tolist(), strict=True))
    else:
        values = {number: float(measured[number][defect]) for number in judged}
    copied = {specimen.source for specimen in corpus}  # they have a copy too: neither class
    clean = [
        sign * values[number]
        for number in judged
        if not corpus[number].defect and (defect != "duplicate" or number not in copied)
    ]
    rows = []
    for severity in SEVERITIES:
        spoiled = [sign * values[n] for n in judged if corpus[n].severity == severity]
        auc = area_under_curve(spoiled, clean)
        low, high = interval(auc, len(spoiled), len(clean))
        measure = f"{stage}.{key}" + (" (nearest)" if defect == "duplicate" else "")
        rows.append(Detection(defect, severity, measure, auc, low, high, len(spoiled), len(clean)))
    return rows


def _lines(rows: Sequence[Mapping[str, object]], as_json: bool) -> str:
    if as_json:
        return "\n".join(json.dumps(row) for row in rows)
    names = list(rows[0])
    table = [names, ["---"] * len(names), *([str(row[name]) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
