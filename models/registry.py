"""The networks by name."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lmwp_models.csf import CSF, CSFConfig
from lmwp_models.csnet import CSNet
from lmwp_models.csnet_config import CSNetConfig
from lmwp_models.errors import UserError
from lmwp_models.head_config import HeadConfig
from lmwp_models.lmwpnet import LMWPNet
from lmwp_models.lmwpnet_config import LMWPNetConfig

Config = CSNetConfig | CSFConfig | LMWPNetConfig
Network = CSNet | CSF | LMWPNet


@dataclass(frozen=True)
class ModelInfo:
    """A registered network: `input_size` is the (H, W) its published figures are given at."""

    name: str
    description: str
    config: Config
    input_size: tuple[int, int] = (224, 224)
    aliases: tuple[str, ...] = ()


def list_models() -> list[str]:
    """Names that `create_model` takes, without aliases."""
    return list(_registered())


def model_info(name: str) -> ModelInfo:
    """Raises `UserError` for an unknown name."""
    models = _registered()
    wanted = name.lower()
    for info in models.values():
        if wanted == info.name or wanted in info.aliases:
            return info
    known = [alias for info in models.values() for alias in (info.name, *info.aliases)]
    close = difflib.get_close_matches(wanted, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise UserError(f"no model is called {name!r}; {hint}known are {', '.join(models)}")


def create_model(name: str, **overrides: Any) -> Network:
    """A freshly initialised network.

    Args:
        name: one of `list_models()` or an alias, in any case.
        overrides: fields of the model's configuration to replace, as the objects or as the plain
            lists and tables of its `to_dict()`: `blocks`, `head` and `stages` for CSNet,
            `backbone` and `head` for CSF, the fields of `LMWPNetConfig` for LMWP-Net.

    Raises:
        UserError: unknown name or field, or channels that make no network.
    """
    info = model_info(name)
    if not overrides:
        return build_model(info.config)
    data = info.config.to_dict()
    unknown = sorted(set(overrides) - set(data) | ({"network"} & set(overrides)))
    if unknown:
        fields = ", ".join(key for key in data if key != "network")
        raise UserError(f"model {name}: unknown option {unknown[0]!r}; known are {fields}")
    plain = {k: v.to_dict() if isinstance(v, HeadConfig) else v for k, v in overrides.items()}
    try:
        return build_model(config_from_dict(data | plain))
    except ValueError as error:
        raise UserError(f"model {name}: {error}") from error


def build_model(config: Config) -> Network:
    """The network of a configuration, freshly initialised."""
    if isinstance(config, CSNetConfig):
        return CSNet(config)
    return CSF(config) if isinstance(config, CSFConfig) else LMWPNet(config)


def config_from_dict(data: object) -> Config:
    """What `to_dict()` of a configuration gave, back; `ValueError` names what is wrong."""
    networks: dict[str, Callable[[object], Config]] = {
        "csnet": CSNetConfig.from_dict,
        "csf": CSFConfig.from_dict,
        "lmwpnet": LMWPNetConfig.from_dict,
    }
    network = data.get("network") if isinstance(data, Mapping) else None
    if network not in networks:
        raise ValueError(f"network: expected one of {', '.join(networks)}, got {network!r}")
    return networks[network](data)


def name_of(config: Config) -> str | None:
    """The registered name of a configuration, if it has one."""
    return next((info.name for info in _registered().values() if info.config == config), None)


@functools.cache
def _registered() -> dict[str, ModelInfo]:
    infos = [*_csnets(), *_extractors(), *_csfs(), *_lmwpnets()]
    return {info.name: info for info in infos}


def _csnets() -> list[ModelInfo]:
    learned = "channels learned by dynamic weight decay and pruning"
    infos = [
        ModelInfo(
            "csnet-x1",
            "CSNet before pruning, split 5/5",
            CSNetConfig.unpruned(),
            aliases=("csnet-5-5",),
        )
    ]
    infos += [
        ModelInfo(f"csnet-{a}-{b}", f"CSNet, split {a}/{b}", CSNetConfig.unpruned(split=(a, b)))
        for a, b in ((1, 0), (3, 1), (1, 3), (0, 1))
    ]
    infos.append(ModelInfo("csnet-single", "CSNet on one branch", CSNetConfig.unpruned(split=(1,))))
    infos += [
        ModelInfo(f"csnet-x{factor}", f"CSNet, {factor} times as wide", CSNetConfig.unpruned(width))
        for factor, width in (("1.2", 24), ("1.5", 30), ("1.8", 36), ("2", 40))
    ]
    return [
        *infos,
        ModelInfo("csnet-l-x1", f"CSNet-L x1, {learned}", CSNET_L_X1),
        ModelInfo("csnet-l-x2", f"CSNet-L x2, {learned}", CSNET_L_X2),
    ]


def _extractors() -> list[ModelInfo]:
    return [
        ModelInfo(
            f"extractor-{a}-{b}",
            f"CSNet's extractor without the fusion head, split {a}/{b}",
            CSNetConfig.unpruned(split=(a, b), head=False),
        )
        for a, b in ((1, 0), (3, 1), (5, 5), (1, 3), (0, 1))
    ]


def _csfs() -> list[ModelInfo]:
    return [
        ModelInfo(
            "csf-resnet50", "CSF head on ResNet-50", CSFConfig("resnet50"), input_size=(300, 400)
        ),
        ModelInfo("csf-res2net50", "CSF head on Res2Net-50 v1b", CSFConfig("res2net50")),
    ]


def _lmwpnets() -> list[ModelInfo]:
    return [
        ModelInfo(
            "lmwpnet",
            "LMWP-Net, reconstructed: its source publishes no layers",
            LMWPNetConfig(),
            input_size=(336, 336),
            aliases=("lmwp-net",),
        )
    ]


# Channels of the two networks released with the paper.
CSNET_L_X1 = CSNetConfig(
    blocks=(
        (8, 10),
        (9, 10), (10, 10), (10, 10),
        (19, 13), (19, 17), (20, 12), (34,),
        (24, 21), (26, 27), (22, 18), (19, 18), (23, 18), (38,),
        (18, 29), (25, 24), (26, 20), (50,),
    ),
    head=HeadConfig(
        fuse=(12, 24, 24),
        ms=((1, 2, 2, 2, 4), (1, 4, 4, 4, 5), (2, 2, 4, 5, 4)),
        fuse1x1=60,
    ),
)  # fmt: skip
CSNET_L_X2 = CSNetConfig(
    blocks=(
        (13, 10),
        (13, 12), (18, 11), (18, 12),
        (28, 21), (34, 22), (31, 29), (51,),
        (23, 26), (27, 26), (25, 20), (17, 21), (19, 25), (38,),
        (18, 31), (31, 27), (26, 44), (64,),
    ),
    head=HeadConfig(
        fuse=(17, 38, 32),
        ms=((2, 1, 2, 2, 1), (0, 6, 6, 7, 5), (0, 1, 3, 7, 7)),
        fuse1x1=79,
    ),
)  # fmt: skip
