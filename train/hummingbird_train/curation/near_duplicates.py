"""Copies in a corpus: fingerprints within a few bits of each other, by the pigeonhole principle.

Two fingerprints that differ in at most d bits agree in at least one of d + 1 bands, and differ by
at most one bit in at least one of d // 2 + 1 wider ones, so only those are compared. A clip is
dropped when it is a copy of one that stays, never because of a chain of clips between them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from hummingbird_runtime.errors import InputError
from hummingbird_train.curation.row import Score
from hummingbird_train.curation.rules import DuplicateRule

_MANY = 20_000  # fingerprints from which wider bands, with more look-ups and fewer hits, pay


def find_copies(rule: DuplicateRule, scores: Mapping[str, Mapping[str, Score]]) -> dict[str, str]:
    """Find the clips that are copies of a better one.

    Args:
        rule: which fingerprint, how near, which copy stays.
        scores: of every clip to look at, by clip id; clips without the fingerprint are left alone.

    Returns:
        Clip id of the copy -> clip id of the one that stays. Does not depend on the order of
        ``scores``.

    Raises:
        InputError: ``rules.fingerprint`` for one that is no hexadecimal text, or of another length.
    """
    prints = {clip: of[rule.of] for clip, of in scores.items() if rule.of in of}
    bits = _bits(rule, prints)
    radius = int(len(prints) > _MANY)
    count = rule.distance // (radius + 1) + 1
    edges = [bits * band // count for band in range(count + 1)]
    spans = [(low, high - low) for low, high in itertools.pairwise(edges)]

    def order(clip: str) -> tuple[float, str]:
        value = scores[clip].get(rule.best, float("-inf")) if rule.best else 0.0
        return (-value if isinstance(value, int | float) else 0.0), clip

    exact: dict[int, str] = {}
    bands: dict[tuple[int, int], list[int]] = {}
    copies: dict[str, str] = {}
    for clip in sorted(prints, key=order):
        value = int(str(prints[clip]), 16)
        twin = exact.get(value)
        keys = [(band, value >> low & ((1 << n) - 1)) for band, (low, n) in enumerate(spans)]
        if twin is None and rule.distance:
            probes = itertools.chain(
                keys,
                ((band, key ^ (1 << bit)) for band, key in keys for bit in range(spans[band][1]))
                if radius
                else (),
            )
            near = (other for key in probes for other in bands.get(key, ()))
            twin = next((exact[o] for o in near if (o ^ value).bit_count() <= rule.distance), None)
        if twin is not None:
            copies[clip] = twin
            continue
        exact[value] = clip
        for key in keys:
            bands.setdefault(key, []).append(value)
    return copies


def _bits(rule: DuplicateRule, prints: Mapping[str, Score]) -> int:
    lengths = set()
    for clip, text in prints.items():
        try:
            if not isinstance(text, str):
                raise ValueError
            int(text, 16)
        except ValueError:
            raise InputError(
                "rules.fingerprint",
                f"clip {clip}: got {text!r:.40} as {rule.of}, expected hexadecimal text",
                hint="`of` must name a fingerprint, such as fingerprint.hash",
            ) from None
        lengths.add(len(text))
    if len(lengths) > 1:
        raise InputError(
            "rules.fingerprint",
            f"{rule.of}: got fingerprints of {sorted(lengths)} digits, expected one length",
            hint="score all clips with the same parameters",
        )
    return 4 * lengths.pop() if lengths else 4
