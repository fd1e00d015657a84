"""Recipes: trapezoid rates, strict keys, readable errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from hummingbird_runtime.errors import InputError
from hummingbird_train.models.autoencoder import AutoencoderConfig
from hummingbird_train.models.text_encoder import TextConfig
from hummingbird_train.models.unet import UNetConfig
from hummingbird_train.recipe import Phase, load_recipe, phases, section
from hummingbird_train.run_config import RunConfig

RECIPES = Path(__file__).parents[2] / "train" / "recipes"
SHIPPED = RECIPES / "shapes.toml"


def test_the_rate_rises_stays_and_falls() -> None:
    phase = Phase(name="p", steps=100, batch=1, learning_rate=1.0, flat=0.5, warmup=10)
    assert phase.rate(0) == pytest.approx(0.1)
    assert phase.rate(9) == phase.rate(50) == pytest.approx(1.0)
    assert phase.rate(75) == pytest.approx(0.5)
    assert phase.rate(99) == pytest.approx(0.02)


def test_the_final_rate_is_reached() -> None:
    phase = Phase(name="p", steps=1000, batch=1, learning_rate=4.0, final_learning_rate=1.0)
    assert phase.rate(999) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ({"name": "p", "steps": 1, "batch": 1, "learning_rate": 1.0, "stepz": 2}, "stepz"),
        ({"name": "p", "batch": 1, "learning_rate": 1.0}, "steps"),
    ],
)
def test_unknown_and_missing_keys_are_named(table: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=named) as caught:
        section(Phase, table, "base")
    assert caught.value.code == "recipe.keys"


def test_a_missing_recipe_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe(tmp_path / "none.toml")
    assert caught.value.code == "recipe.unreadable"


def test_the_shipped_recipe_is_complete() -> None:
    recipe = load_recipe(SHIPPED)
    stages = [name for name, table in recipe.items() if isinstance(table, dict)]
    assert {"vae", "base"} <= set(stages)
    # of consistency the loss alone, which feedback goes on with
    assert [stage for stage in stages if not phases(recipe[stage], stage)] == ["consistency"]
    for stage in stages:
        RunConfig.from_recipe(recipe, stage)


def test_the_shipped_recipe_trains_the_tiny_presets() -> None:
    recipe = load_recipe(SHIPPED)
    assert section(UNetConfig, recipe["base"]["unet"], "base.unet") == UNetConfig.tiny()
    assert section(AutoencoderConfig, recipe["vae"]["model"], "m") == AutoencoderConfig.tiny()
    assert TextConfig(**recipe["base"]["text"], vocab_size=75) == TextConfig.tiny(75)


@pytest.mark.parametrize("name", ["smoke", "hour"])
def test_the_recipes_of_small_budgets_go_from_nothing_to_a_few_steps(name: str) -> None:
    recipe = load_recipe(RECIPES / f"{name}.toml")
    trained = {
        stage for stage, table in recipe.items() if isinstance(table, dict) and phases(table, stage)
    }
    assert {"vae", "base", "teacher", "distill", "consistency", "decoder"} <= trained
    assert {"tiny-decoder", "upscaler"} <= trained
    for stage in trained:
        RunConfig.from_recipe(recipe, stage)
