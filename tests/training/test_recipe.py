"""Recipes: shipped ones load, mistakes are named."""

import pytest

from lmwp_models.errors import UserError
from lmwp_models.training.recipe import builtin_recipes, load_recipe, recipe_from_dict


def test_every_shipped_recipe_loads():
    assert {"csnet.toml", "csnet-quick.toml", "demo.toml"} <= set(builtin_recipes())
    for name in builtin_recipes():
        load_recipe(name)


def test_csnet_recipe_is_the_papers():
    recipe = load_recipe("csnet.toml")
    assert (recipe.train.epochs, recipe.train.batch_size, recipe.data.image_size) == (300, 24, 224)
    assert recipe.schedule.kind == "step"
    assert recipe.schedule.milestones == (200, 250)
    assert (recipe.optimizer.lr, recipe.optimizer.betas) == (1e-4, (0.9, 0.99))
    assert (recipe.optimizer.weight_decay, recipe.decay.weight) == (5e-3, 3.0)


def test_overrides_are_typed_and_round_trip():
    recipe = load_recipe(
        "csnet.toml", ["train.epochs=7", "data.train=/some/where", "schedule.milestones=[3, 5]"]
    )
    assert recipe.train.epochs == 7
    assert recipe.data.train == "/some/where"
    assert recipe.schedule.milestones == (3, 5)
    assert recipe_from_dict(recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epoch=7", "unknown key train.epoch; known here: epochs, batch_size"),
        ("trian.epochs=7", "unknown key trian; known here: model, data"),
        ("train.epochs=0", "train.epochs = 0: Input should be greater than or equal to 1"),
        ("train.epochs=many", "train.epochs = 'many'"),
        ("train.batch_size=1", "train.batch_size = 1"),
        ("decay.mode=strong", "decay.mode = 'strong': Input should be 'penalty', 'decoupled'"),
        ("optimizer.lr=-1.0", "optimizer.lr = -1.0"),
        ("optimizer.kind=sgd", "optimizer.kind = 'sgd': Input should be 'adam' or 'adamw'"),
        ("train.loss=dice", "train.loss = 'dice': known losses are bce"),
        ("train.ema=1.0", "train.ema = 1.0: Input should be less than 1"),
        ("data.cache=tape", "data.cache = 'tape': Input should be 'disk', 'ram' or 'device'"),
        ("epochs=7", "expected section.key=value"),
        ("train.epochs", "expected section.key=value"),
    ],
)
def test_a_bad_override_is_one_line_that_names_the_key(override, message):
    with pytest.raises(UserError) as caught:
        load_recipe("csnet.toml", [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_recipe_names_the_shipped_ones(tmp_path):
    with pytest.raises(UserError, match=r"shipped are: csnet-quick\.toml, csnet\.toml"):
        load_recipe(tmp_path / "absent.toml")


def test_broken_toml_names_the_line(tmp_path):
    path = tmp_path / "broken.toml"
    path.write_text("[train]\nepochs = \n")
    with pytest.raises(UserError, match="line 2"):
        load_recipe(path)


def test_a_value_in_place_of_a_section_is_refused(tmp_path):
    path = tmp_path / "flat.toml"
    path.write_text("train = 3\n")
    with pytest.raises(UserError, match="train = 3"):
        load_recipe(path)
    with pytest.raises(UserError, match="train is not a section"):
        load_recipe(path, ["train.epochs=3"])
