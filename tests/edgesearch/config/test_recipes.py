"""The recipes that come with edgesearch say where each value comes from."""

import pytest

from edgesearch.config import load_config, shipped_configs
from edgesearch.config.load_config import SHIPPED
from edgesearch.pretrain.recipes import RECIPES


@pytest.mark.parametrize(
    "name", [name for name in shipped_configs() if name.startswith(("cifar10", "imagenet"))]
)
def test_recipes_are_documented_line_by_line(name):
    lines = (SHIPPED / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    values = [line for line in lines if line and line[0] != "#" and not line.endswith(":")]
    assert len(values) > 15
    assert [line for line in values if " # " not in line] == []


def test_recipe_of_data_is_written_out():
    written = load_config("imagenet_resnet50to101", ["data.root=images"]).pretrain
    left_out = {"predictor_hidden_dim", "dense_weight", "teacher_temperature", "threads", "init"}
    assert type(written).model_fields.keys() - written.model_fields_set == left_out
    defaults = {**RECIPES["moco_v2"].training, **RECIPES["moco_v2"].options}
    assert {name: getattr(written, name) for name in defaults} == defaults
