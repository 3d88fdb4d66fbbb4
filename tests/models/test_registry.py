"""Names, aliases, overrides, and what the registry says of a mistake."""

import pytest
import torch

import lmwp_models
from lmwp_models.csnet_config import CSNetConfig
from lmwp_models.errors import UserError
from lmwp_models.head_config import HeadConfig
from lmwp_models.registry import (
    config_from_dict,
    create_model,
    list_models,
    model_info,
    name_of,
)

NAMES = {
    *("csnet-x1", "csnet-1-0", "csnet-3-1", "csnet-1-3", "csnet-0-1", "csnet-single"),
    *("csnet-x1.2", "csnet-x1.5", "csnet-x1.8", "csnet-x2", "csnet-l-x1", "csnet-l-x2"),
    *("extractor-1-0", "extractor-3-1", "extractor-5-5", "extractor-1-3", "extractor-0-1"),
    *("csf-resnet50", "csf-res2net50", "lmwpnet"),
}


def test_names():
    assert set(list_models()) == NAMES
    assert lmwp_models.list_models() == list_models()


@pytest.mark.parametrize("name", sorted(NAMES))
def test_config_is_found_by_itself(name):
    info = model_info(name)
    assert name_of(info.config) == name
    assert config_from_dict(info.config.to_dict()) == info.config
    with torch.device("meta"):
        model = create_model(name)
    assert model.config == info.config
    assert all(side % model.size_multiple == 0 for side in info.input_size)


def test_aliases_and_case():
    assert model_info("csnet-5-5").name == "csnet-x1"
    assert model_info("CSNet-L-x2").name == "csnet-l-x2"


@pytest.mark.parametrize(
    ("name", "width", "expected"),
    [("csnet-x1.2", 24, (12, 12)), ("csnet-x1.8", 36, (18, 18)), ("csnet-3-1", 20, (15, 5)),
     ("csnet-1-3", 20, (5, 15)), ("csnet-0-1", 20, (0, 20)), ("csnet-single", 20, (20,))],
)  # fmt: skip
def test_widths_of_the_first_block(name, width, expected):
    config = model_info(name).config
    assert config.blocks[0] == expected
    assert sum(config.blocks[0]) == width


def test_unpruned_head():
    head = model_info("csnet-x2").config.head
    assert head.fuse == (26, 53, 53)
    assert head.ms == ((5, 5, 5, 5, 6), (10, 10, 10, 10, 13), (10, 10, 10, 10, 13))
    assert head.fuse1x1 == 132


def test_overrides_take_objects_and_plain_lists():
    head = HeadConfig((12, 24, 24), ((1, 2, 2, 2, 4), (0, 4, 4, 4, 5), (2, 2, 4, 5, 4)), 60)
    with torch.device("meta"):
        by_object = create_model("csnet-x1", head=head)
        by_table = create_model("csnet-x1", head=head.to_dict())
    assert by_object.config == by_table.config
    assert by_object.config.head == head
    assert by_object.config.blocks == model_info("csnet-x1").config.blocks
    blocks = [[3, 2]] * 7 + [[5]] + [[3, 2]] * 5 + [[6]] + [[3, 2]] * 3 + [[7]]
    model = create_model("csnet-x1", blocks=blocks).eval()
    assert isinstance(model.config, CSNetConfig)
    assert model(torch.zeros(1, 3, 16, 16)).shape == (1, 1, 16, 16)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("csnet-x3", {}, r"no model is called 'csnet-x3'; did you mean 'csnet-x\S+'\? known are "),
        ("yolo", {}, r"no model is called 'yolo'; known are csnet-x1, "),
        ("csnet-x1", {"width": 3}, r"model csnet-x1: unknown option 'width'; known are blocks, "),
        ("csnet-x1", {"network": "csf"}, r"unknown option 'network'"),
        ("csnet-x1", {"blocks": [[3]]}, r"model csnet-x1: blocks: expected 18"),
        ("csf-resnet50", {"backbone": "vgg"}, r"backbone: expected one of resnet50, res2net50"),
        ("csf-resnet50", {"head": HeadConfig.unpruned((32, 32, 32))}, r"head.fuse: expected 4 sc"),
        ("csf-resnet50", {"head": HeadConfig.unpruned((32, 32, 32, 33))}, r"multiples of 32, got"),
    ],
)  # fmt: skip
def test_mistakes_are_named_in_one_line(name, overrides, message):
    with pytest.raises(UserError, match=message) as caught:
        create_model(name, **overrides)
    assert "\n" not in str(caught.value)


def test_unknown_network_in_a_config():
    with pytest.raises(ValueError, match=r"network: expected one of csnet, csf, lmwpnet, got None"):
        config_from_dict({"blocks": []})
