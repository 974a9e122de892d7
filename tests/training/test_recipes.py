"""Recipes are what the paper says for ImageNet, and the learning rate is a pure function of the epoch."""

import math

import pytest

from tfnas.core.errors import InputError
from tfnas.training.train_config import RECIPES, learning_rate, recipe_for


def test_imagenet_is_the_papers():
    recipe = recipe_for("list", {})
    numbers = (recipe.epochs, recipe.batch_size, recipe.lr, recipe.momentum, recipe.weight_decay, recipe.grad_clip)
    assert numbers == (250, 512, 0.2, 0.9, 1e-5, 5.0)
    assert (recipe.label_smooth, recipe.dropout_rate, recipe.drop_connect_rate) == (0.1, 0.2, 0.2)
    assert recipe.warmup_epochs == 5


@pytest.mark.parametrize(("batch_size", "warmup"), [(256, 0), (257, 5), (512, 5), (32, 0)])
def test_large_batches_are_warmed_up(batch_size, warmup):
    assert recipe_for("list", {"batch_size": batch_size}).warmup_epochs == warmup
    assert recipe_for("list", {"batch_size": batch_size, "warmup_epochs": 3}).warmup_epochs == 3


def test_learning_rate_at_known_points():
    recipe = recipe_for("list", {"epochs": 100})
    assert learning_rate(recipe, 0) == pytest.approx(0.2 / 5)
    assert learning_rate(recipe, 2) == pytest.approx(0.1 * (1 + math.cos(0.02 * math.pi)) * 3 / 5)
    assert learning_rate(recipe, 50) == pytest.approx(0.1)
    assert learning_rate(recipe, 99) == pytest.approx(0.2 * math.sin(math.pi / 200) ** 2)
    plain = recipe_for("digits", {"lr": 0.4, "epochs": 2})
    assert [learning_rate(plain, epoch) for epoch in (0, 1)] == pytest.approx([0.4, 0.2])


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize(
    ("field", "value"),
    [("lr", 0.0), ("lr", math.nan), ("epochs", 0), ("label_smooth", 1.0), ("weight_decay", -1.0), ("momentum", -0.1)],
)
def test_values_that_do_not_fit_are_named(name, field, value):
    with pytest.raises(InputError, match=f"{field} must be"):
        recipe_for(name, {field: value})
