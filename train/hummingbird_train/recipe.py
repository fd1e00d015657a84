"""Recipes: one TOML file says every stage of a training run; phases are counted in steps.

Counting steps, not minutes, makes a run repeatable: a ``--minutes`` budget only says when to pause.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hummingbird_runtime.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Phase:
    """One stretch of training with fixed shapes and one learning-rate trapezoid."""

    name: str
    steps: int
    """Optimiser steps of this phase."""
    batch: int
    """Samples per micro-batch: per rank and step, times the run's ``accumulate``."""
    learning_rate: float
    """After the warm-up."""
    final_learning_rate: float = 0.0
    """Where the linear descent ends."""
    flat: float = 0.5
    """Share of the steps before the linear descent to the final rate begins."""
    warmup: int = 50
    """Steps of the linear rise at the start."""
    frames: int = 1
    """Frames of a sample; 1 skips the temporal layers."""
    stride: int = 1
    """World frames between two sample frames."""
    first_frames: tuple[int, int] | None = None
    """First and last index at which a sample of stages `base` and `teacher` may begin; None for all
    that fit."""
    timestep_shift: float = 1.0
    """Above 1, stages `base` and `teacher` draw noisier timesteps (``stratified_timesteps``)."""
    images_every: int = 0
    """Every n-th step trains on single frames instead; 0 never."""
    images_batch: int = 0
    """Samples per micro-batch of such a step."""

    def rate(self, step: int) -> float:
        """Learning rate at a 0-based step of the phase."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        start = self.flat * self.steps
        fall = 0.0 if step < start else (step - start) / max(1.0, self.steps - start)
        return rise * (self.learning_rate + fall * (self.final_learning_rate - self.learning_rate))


def load_recipe(path: Path) -> dict[str, Any]:
    """Read a recipe.

    Raises:
        InputError: ``recipe.unreadable`` when the file is missing or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(
            "recipe.unreadable", f"recipe {path}: {error}", hint="give an existing TOML file"
        ) from error


def section(cls: type[T], table: dict[str, Any], where: str) -> T:
    """Build a frozen dataclass from a TOML table, refusing unknown and missing keys.

    Raises:
        InputError: ``recipe.keys`` naming the keys and the section.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(table) - set(fields))
    missing = sorted(
        n for n, f in fields.items()
        if n not in table
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    )  # fmt: skip
    if unknown or missing:
        raise InputError(
            "recipe.keys",
            f"recipe section [{where}]: unknown {unknown}, missing {missing}",
            hint=f"known keys: {', '.join(fields)}",
        )
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
    return cls(**values)


def phases(table: dict[str, Any], where: str) -> tuple[Phase, ...]:
    """The ``phases`` array of a stage's table."""
    return tuple(
        section(Phase, p, f"{where}.phases[{i}]") for i, p in enumerate(table.get("phases", []))
    )


def locate(phases: Sequence[Phase], step: int) -> tuple[Phase, int]:
    """The phase of a global 0-based step, and the step within it."""
    for phase in phases:
        if step < phase.steps:
            return phase, step
        step -= phase.steps
    raise AssertionError("step lies beyond the last phase")


def rewritten(old: Sequence[Mapping[str, Any]], new: Sequence[Phase], step: int) -> list[str]:
    """What a recipe changed about steps already done; empty when they would be the same again.

    Phases not begun are free. The phase in progress may end sooner or later, not before the steps
    it has done; so may the last phase when it is finished.

    Args:
        old: ``dataclasses.asdict`` of the phases that the steps were done with; fields that
            phases did not have then count as their defaults.
        new: phases of the recipe now.
        step: steps done.

    Returns:
        One line a difference, such as ``phase images: batch was 8, is 4``.
    """
    found = []
    start = 0
    for number, was in enumerate(old):
        done = min(was["steps"], step - start)
        if done <= 0:
            break
        if number >= len(new):
            found.append(f"phase {was['name']} is gone")
            break
        table = dataclasses.asdict(new[number])
        for key, field in ((f.name, f) for f in dataclasses.fields(Phase)):
            before = was.get(key, field.default)
            open_end = key == "steps" and (done < was["steps"] or number == len(old) - 1)
            if open_end and table[key] >= done:
                continue
            if table[key] != before:
                found.append(f"phase {was['name']}: {key} was {before!r}, is {table[key]!r}")
        start += was["steps"]
    return found
