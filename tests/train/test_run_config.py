"""Settings of a run from a recipe."""

from __future__ import annotations

import pytest

from hummingbird_runtime.errors import InputError
from hummingbird_train.optim import OptimizerConfig
from hummingbird_train.run_config import RunConfig


def test_a_stage_without_settings_has_the_defaults_and_the_recipes_seed() -> None:
    assert RunConfig.from_recipe({"seed": 3, "base": {}}, "base") == RunConfig(seed=3)
    assert RunConfig.from_recipe({}, "base") == RunConfig()


def test_every_setting_may_stand_in_the_recipe() -> None:
    recipe = {
        "seed": 1,
        "distill": {
            "ema_decay": 0.9,
            "run": {"precision": "bf16", "checkpointing": True, "accumulate": 4},
            "optimizer": {"kind": "adamw", "adam_betas": [0.9, 0.95]},
        },
    }
    assert RunConfig.from_recipe(recipe, "distill") == RunConfig(
        seed=1,
        ema_decay=0.9,
        precision="bf16",
        checkpointing=True,
        accumulate=4,
        optimizer=OptimizerConfig(kind="adamw", adam_betas=(0.9, 0.95)),
    )


@pytest.mark.parametrize(
    ("table", "code", "named"),
    [
        ({"run": {"precison": "bf16"}}, "recipe.keys", r"distill\.run"),
        ({"run": {"seed": 4}}, "recipe.keys", r"distill\.run"),
        ({"optimizer": {"lr": 1.0}}, "recipe.keys", r"distill\.optimizer"),
        ({"run": {"keep": 0}}, "train.config", "keep"),
    ],
)
def test_unknown_settings_are_named(table: dict[str, object], code: str, named: str) -> None:
    with pytest.raises(InputError, match=named) as caught:
        RunConfig.from_recipe({"distill": table}, "distill")
    assert caught.value.code == code
