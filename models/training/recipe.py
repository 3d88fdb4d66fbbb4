"""Recipes: everything a training run depends on, as validated TOML."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from lmwp_models.errors import UserError
from lmwp_models.training.loss import LOSSES
from lmwp_models.training.precision import Amp


def _known_loss(name: str) -> str:
    if name not in LOSSES:
        raise ValueError(f"known losses are {', '.join(LOSSES)}")
    return name


PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSection(_Section):
    """Which network to train."""

    name: str = "csnet-x1"
    options: dict[str, Any] = Field(default_factory=dict)  # overrides, as of create_model


class DataSection(_Section):
    """Where the pictures come from and how they reach the network."""

    train: str = "synthetic"  # a folder, or "synthetic[:COUNT]"
    list_file: str | None = None  # pair list inside the folder, when there is one
    image_size: PositiveInt = 224
    holdout: NonNegativeInt = 200  # pictures kept back for validation
    cache_dir: str | None = None
    max_side: PositiveInt | None = None  # shrink larger originals when caching
    cache: Literal["disk", "ram", "device"] = "disk"  # where decoded pictures are kept
    skip_bad: bool = False
    workers: NonNegativeInt | None = None  # None: 0 on the CPU, up to 8 on a GPU


class AugmentSection(_Section):
    """Random crop and flip; sizes in pixels of the stored picture."""

    crop: NonNegativeInt = 14
    flip: Fraction = 0.5
    vertical: Fraction = 0.5  # share of the flips that are up-down


class OptimizerSection(_Section):
    """Adam, as the CSNet paper trains with, or AdamW."""

    kind: Literal["adam", "adamw"] = "adam"
    lr: PositiveFloat = 1e-4
    betas: tuple[Fraction, Fraction] = (0.9, 0.99)
    eps: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 5e-3
    clip_norm: NonNegativeFloat = 0.0  # largest norm of all gradients together; 0: any


class ScheduleSection(_Section):
    """Learning rate over the run."""

    kind: Literal["step", "cosine", "one_cycle", "constant"] = "step"
    milestones: tuple[PositiveInt, ...] = (200, 250)  # epochs, for "step"
    gamma: Fraction = 0.1  # factor at each milestone
    warmup: Fraction | None = None  # share of the run spent rising: 0.25 for "one_cycle", else 0
    final: Fraction = 0.0  # share of the peak at the end, for "cosine"


class DecaySection(_Section):
    """Dynamic weight decay of the batch-norm gammas."""

    mode: Literal["penalty", "decoupled", "off"] = "penalty"
    weight: NonNegativeFloat = 3.0
    scaling: Literal["uniform", "resolution"] = "uniform"


class TrainSection(_Section):
    """The loop itself."""

    epochs: PositiveInt = 300
    batch_size: Annotated[int, Field(ge=2)] = 24  # pictures a step, of all passes and processes
    accumulate: PositiveInt = 1  # forward passes a step
    loss: Annotated[str, AfterValidator(_known_loss)] = "bce"
    seed: NonNegativeInt = 0
    device: str = "auto"
    amp: Amp = "off"
    channels_last: bool = False
    compile: bool = False  # torch.compile
    cuda_graphs: bool = False  # forward and backward replayed as a CUDA graph
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0  # decay of the averaged weights; 0: none
    checkpoint_every: PositiveInt = 100  # steps
    validate_every: PositiveInt = 1  # epochs
    patience: NonNegativeInt = 0  # validations without a better score that end the run; 0: any
    panels: NonNegativeInt = 6  # validation pictures shown after each validation


class Recipe(_Section):
    """A whole training run; written into every run folder and checkpoint."""

    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    augment: AugmentSection = AugmentSection()
    optimizer: OptimizerSection = OptimizerSection()
    schedule: ScheduleSection = ScheduleSection()
    decay: DecaySection = DecaySection()
    train: TrainSection = TrainSection()


def builtin_recipes() -> list[str]:
    """Names of the recipes shipped in the package."""
    folder = resources.files("lmwp_models") / "recipes"
    return sorted(f.name for f in folder.iterdir() if f.name.endswith(".toml"))


def load_recipe(source: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe file, or a shipped one by name, and apply `section.key=value` overrides.

    Raises `UserError` naming the offending file, line or key.
    """
    text = _read(source)
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"recipe {source}: not valid TOML: {error}") from None
    for override in overrides or []:
        _apply(tree, override)
    return recipe_from_dict(tree, where=f"recipe {source}")


def recipe_from_dict(tree: dict[str, Any], *, where: str = "recipe") -> Recipe:
    """Validate nested plain data as a recipe; `UserError` names the first offending key."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{where}: {_explain(error)}") from None


def _read(source: str | Path) -> str:
    path = Path(source)
    if path.is_file():
        return path.read_text(encoding="utf-8")
    shipped = resources.files("lmwp_models") / "recipes" / path.name
    if path.parent == Path() and shipped.is_file():
        return shipped.read_text(encoding="utf-8")
    raise UserError(
        f"recipe {source}: no such file, and not a shipped recipe; "
        f"shipped are: {', '.join(builtin_recipes())}"
    )


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    *sections, name = key.split(".")
    if not (equals and sections and all(sections) and name):
        raise UserError(f"override {override!r}: expected section.key=value, e.g. train.epochs=20")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value  # a bare string such as a path or a device
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise UserError(f"override {override!r}: {section} is not a section of the recipe")
    tree[name] = parsed


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        section = Recipe.model_fields.get(path[0]) if len(path) > 1 else None
        fields = section.annotation.model_fields if section else Recipe.model_fields  # type: ignore[union-attr]
        return f"unknown key {key}; known here: {', '.join(fields)}"
    return f"{key} = {first['input']!r}: {first['msg'].removeprefix('Value error, ')}"
