"""Rules: which scores a clip must have to be kept. Scores never change, rules may at any time.

    [rules]
    missing = "drop"                          # drop | keep | error, for a score that is not there
    "sharpness.laplacian" = { min = 20.0 }
    "probe.codec" = { one_of = ["h264", "vp9"], missing = "keep" }
    duplicates = { of = "fingerprint.hash", distance = 6, best = "sharpness.laplacian" }

A clip is dropped for the first rule that it breaks, in the order of the file; near duplicates are
looked for among what is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hummingbird_runtime.errors import InputError, UsageError
from hummingbird_train.curation.row import Score

POLICIES = ("drop", "keep", "error")
_KEYS = {"min", "max", "equals", "one_of", "missing"}


@dataclass(frozen=True)
class Rule:
    """What one score must be."""

    score: str
    """``stage.key``."""
    min: float | None = None
    """lowest value kept."""
    max: float | None = None
    """highest value kept."""
    equals: Score | None = None
    """the only value kept."""
    one_of: tuple[Score, ...] = ()
    """the only values kept; empty: no such condition."""
    missing: str = "drop"
    """what becomes of a clip without this score: drop, keep or error."""

    def reason(self, scores: Mapping[str, Score]) -> str:
        """Why a clip is dropped, the same words for every clip; empty when it is kept.

        Raises:
            InputError: ``rules.score_missing``, ``rules.score_type``.
        """
        value = scores.get(self.score)
        if value is None:
            if self.missing == "error":
                raise InputError(
                    "rules.score_missing",
                    f"rule {self.score}: got a clip without this score, expected one",
                    hint='score the run with this stage, or say missing = "drop"',
                )
            return f"{self.score} missing" if self.missing == "drop" else ""
        if self.min is not None or self.max is not None:
            if isinstance(value, str):
                raise InputError(
                    "rules.score_type",
                    f"rule {self.score}: got the text {value!r:.40}, expected a number",
                    hint="min and max judge numbers; use equals or one_of",
                )
            if self.min is not None and value < self.min:
                return f"{self.score} < {self.min:g}"
            if self.max is not None and value > self.max:
                return f"{self.score} > {self.max:g}"
        if self.equals is not None and value != self.equals:
            return f"{self.score} is not {self.equals!r}"
        if self.one_of and value not in self.one_of:
            return f"{self.score} is none of {', '.join(map(repr, self.one_of))}"
        return ""


@dataclass(frozen=True)
class DuplicateRule:
    """Which clips count as copies of each other; one of them stays."""

    of: str
    """``stage.key`` of a fingerprint in hexadecimal, of equal length for all clips."""
    distance: int = 0
    """bits in which two copies may differ; 0: equal fingerprints only."""
    best: str = ""
    """``stage.key`` whose highest value says which copy stays; empty: the lowest clip id."""


@dataclass(frozen=True)
class Rules:
    """All rules of a cut."""

    rules: tuple[Rule, ...] = ()
    """in the order of the file."""
    duplicates: DuplicateRule | None = None
    """applied last."""

    @classmethod
    def from_toml(cls, table: Mapping[str, Any]) -> Rules:
        """Read a ``[rules]`` table.

        Raises:
            UsageError: ``rules.invalid`` naming the rule and what is wrong with it.
        """
        table = dict(table)
        missing = table.pop("missing", "drop")
        _check(missing in POLICIES, "missing", missing, f"one of {', '.join(POLICIES)}")
        copies = table.pop("duplicates", None)
        rules = tuple(_rule(name, t, missing) for name, t in _flat(table).items())
        return cls(rules, None if copies is None else _duplicates(copies))

    def keep(self, scores: Mapping[str, Score]) -> tuple[bool, str]:
        """Judge one clip by its own scores; near duplicates are no matter of one clip.

        Args:
            scores: values by ``stage.key``.

        Returns:
            (kept, reason of the first rule that it breaks or "").
        """
        for rule in self.rules:
            if reason := rule.reason(scores):
                return False, reason
        return True, ""

    def named_scores(self) -> list[str]:
        """Every ``stage.key`` that a rule reads."""
        names = [rule.score for rule in self.rules]
        if self.duplicates is not None:
            names += [name for name in (self.duplicates.of, self.duplicates.best) if name]
        return names


def _flat(table: Mapping[str, Any]) -> dict[str, Any]:
    """Rules by ``stage.key``, whether the dot was quoted in the file or not."""
    flat: dict[str, Any] = {}
    for name, value in table.items():
        if "." in name or not isinstance(value, dict) or value.keys() & _KEYS:
            flat[name] = value
        else:
            flat |= {f"{name}.{key}": inner for key, inner in value.items()}
    return flat


def _rule(name: str, table: Any, missing: str) -> Rule:
    stage, _, key = name.partition(".")
    _check(bool(stage and key), name, name, "a name STAGE.SCORE")
    _check(isinstance(table, dict), name, table, "a table like { min = 0.5 }")
    unknown = sorted(table.keys() - _KEYS)
    _check(not unknown, name, unknown, f"only {', '.join(sorted(_KEYS))}")
    _check(bool(table.keys() - {"missing"}), name, table, "min, max, equals or one_of")
    for bound in ("min", "max"):
        value = table.get(bound, 0)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        _check(number and value == value, f"{name} {bound}", value, "a number")
    low, high = table.get("min"), table.get("max")
    _check(low is None or high is None or low <= high, name, table, "min <= max")
    options = table.get("one_of", ["any"])
    _check(isinstance(options, list) and options, f"{name} one_of", options, "a list of values")
    scalars = [*options, table.get("equals", "")]
    plain = all(isinstance(value, bool | int | float | str) for value in scalars)
    _check(plain, name, scalars, "numbers, texts or booleans")
    policy = table.get("missing", missing)
    _check(policy in POLICIES, f"{name} missing", policy, f"one of {', '.join(POLICIES)}")
    return Rule(
        name, low, high, table.get("equals"), tuple(table.get("one_of", ())), policy
    )  # fmt: skip


def _duplicates(table: Any) -> DuplicateRule:
    _check(isinstance(table, dict), "duplicates", table, "a table with `of`")
    unknown = sorted(table.keys() - {"of", "distance", "best"})
    _check(not unknown, "duplicates", unknown, "only of, distance, best")
    of, distance, best = table.get("of", ""), table.get("distance", 0), table.get("best", "")
    for name, value in (("of", of), ("best", best or "a.b")):
        _check(isinstance(value, str) and "." in value, f"duplicates {name}", value, "STAGE.SCORE")
    number = isinstance(distance, int) and not isinstance(distance, bool)
    _check(number and 0 <= distance <= 256, "duplicates distance", distance, "0 to 256 bits")
    return DuplicateRule(of, distance, best)


def _check(good: Any, name: str, got: object, expected: str) -> None:
    if not good:
        raise UsageError(
            "rules.invalid",
            f"rule {name}: got {got!r:.80}, expected {expected}",
            hint="see docs/curation.md",
        )
