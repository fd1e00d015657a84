"""How a stage runs, whatever it trains: seed, averaging, number format, memory, intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hummingbird_runtime.errors import InputError
from hummingbird_train.accelerator import HALF, Precision
from hummingbird_train.optim import OptimizerConfig
from hummingbird_train.recipe import section

FIXED = ("seed", "ema_decay", "optimizer", "precision")
"""Settings that a run cannot change on the way."""


@dataclass(frozen=True)
class RunConfig:
    """How a stage runs, whatever it trains."""

    seed: int = 0
    """Of every batch."""
    ema_decay: float = 0.995
    """Of the averaged weights, which are what is saved as the model."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Kind and constants; phases bring the learning rate."""
    precision: Precision = "fp32"
    """Number format of the networks' arithmetic: fp32, bf16 or fp16; weights stay float32."""
    checkpointing: bool = False
    """Compute blocks again in backward: a third more time, a fraction of the memory."""
    accumulate: int = 1
    """Micro-batches per rank and step; ranks times this make the batch, whoever computes it."""
    skip_non_finite: int = 0
    """Steps without a finite loss and gradient that a run may leave out; one more is an error."""
    save_every: float = 60.0
    """Seconds between two states on disk."""
    keep: int = 2
    """Newest states that stay on disk."""
    report_every: float = 10.0
    """Seconds between two lines of the log."""
    samples_every: int = 0
    """Steps between two calls of the objective's ``samples``; 0 never."""
    tensorboard: bool = False
    """Write TensorBoard events as well; needs the extra of that name."""

    def __post_init__(self) -> None:
        """Refuse values out of range with ``train.config``."""
        choices = ("fp32", *HALF)
        for name, good, expected in (
            ("precision", self.precision in choices, f"one of {', '.join(choices)}"),
            ("accumulate", self.accumulate >= 1, "at least 1"),
            ("keep", self.keep >= 1, "at least 1"),
            ("skip_non_finite", self.skip_non_finite >= 0, "at least 0"),
            ("samples_every", self.samples_every >= 0, "at least 0"),
            ("ema_decay", 0.0 <= self.ema_decay <= 1.0, "0 to 1"),
        ):
            if not good:
                raise InputError(
                    "train.config",
                    f"run option {name}, got {getattr(self, name)!r}, expected {expected}",
                    hint="correct the recipe",
                )

    @classmethod
    def from_recipe(cls, recipe: Mapping[str, Any], stage: str) -> RunConfig:
        """The recipe's ``seed``, the stage's ``ema_decay``, [STAGE.run] and [STAGE.optimizer].

        Raises:
            InputError: ``recipe.keys`` for unknown keys, ``train.config`` for values out of range.
        """
        table = recipe.get(stage, {})
        options = dict(table.get("run", {}))
        for key in sorted({"seed", "optimizer"} & set(options)):
            raise InputError(
                "recipe.keys",
                f"recipe section [{stage}.run]: {key!r} does not belong there",
                hint="seed stands at the top of the recipe, the optimiser in [STAGE.optimizer]",
            )
        if "ema_decay" in table:
            options["ema_decay"] = float(table["ema_decay"])
        built = section(cls, options, f"{stage}.run")
        optimizer = section(OptimizerConfig, dict(table.get("optimizer", {})), f"{stage}.optimizer")
        return dataclasses.replace(built, seed=int(recipe.get("seed", 0)), optimizer=optimizer)
