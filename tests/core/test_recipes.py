"""The configurations for cards of 12 to 80 GB are complete, and say what the plan computes."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.memory_recipes import CARDS_GB, RECIPES, comments
from deployments.core.config import ServiceConfig

CONFIG = Path(__file__).parents[2] / "config"


def read(path: Path) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(path.read_text())
    return read


def test_there_is_one_for_each_card() -> None:
    """And no other."""
    names = {path.name for path in (CONFIG / "recipes").iterdir()}
    assert names == {f"{card_gb}gb.yaml" for card_gb in CARDS_GB}


@pytest.mark.parametrize("card_gb", CARDS_GB)
def test_a_recipe_is_a_whole_configuration(card_gb: int) -> None:
    """It differs from `serve.yaml` in the models alone, and says nothing else of them."""
    recipe, usual = read(CONFIG / f"recipes/{card_gb}gb.yaml"), read(CONFIG / "serve.yaml")
    args = recipe["applications"][0].pop("args")
    usual["applications"][0].pop("args")
    assert recipe == usual
    made, default = ServiceConfig.model_validate(args), ServiceConfig()
    assert made.model_copy(update={"models": default.models}) == default
    changed = {"device": "cuda", "weights": RECIPES[card_gb], "keep_alive_s": 0}
    expected = [model.model_copy(update=changed) for model in default.models]
    assert list(made.models) == expected


@pytest.mark.parametrize("card_gb", CARDS_GB)
def test_a_recipe_says_what_fits_the_card(card_gb: int) -> None:
    """Line by line as the plan computes it; `benchmarks.memory_recipes.comments` prints them."""
    written = (CONFIG / f"recipes/{card_gb}gb.yaml").read_text().splitlines()
    assert [line for line in comments(card_gb) if line not in written] == []
