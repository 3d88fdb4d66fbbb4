"""Arguments that several commands share, and what they make."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from lmwp_models.errors import UserError

if TYPE_CHECKING:
    from lmwp_models.data import Source
    from lmwp_models.predict import InputSize, Predictor


def add_network_options(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Which weights to run, at which size, where."""
    parser.add_argument(
        "--weights",
        type=Path,
        required=required,
        help="network file written by train or import-csnet (.safetensors)",
    )
    parser.add_argument(
        "--size",
        default=None,
        help="network input: N, HxW, or 'native' for the image's own size (default: the file's)",
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: auto)")
    parser.add_argument("--threads", type=positive_int, help="CPU threads (default: torch's)")


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Which pictures to read."""
    parser.add_argument("--data", required=True, help="data set folder, or synthetic[:COUNT]")
    parser.add_argument("--list", dest="list_file", help="pair list of a flat folder")
    add_skip_bad_option(parser)


def add_skip_bad_option(parser: argparse.ArgumentParser) -> None:
    """Whether a broken picture stops the command."""
    parser.add_argument("--skip-bad", action="store_true", help="skip unreadable files, say which")


def skip_bad_override(args: argparse.Namespace) -> list[str]:
    """`--skip-bad` as an override of a recipe."""
    return ["data.skip_bad=true"] if args.skip_bad else []


def make_predictor(args: argparse.Namespace) -> Predictor:
    """The network of `--weights`, ready to map pictures."""
    from lmwp_models.device import resolve_device, set_up_cpu
    from lmwp_models.predict import Predictor
    from lmwp_models.weights import load_model

    set_up_cpu(args.threads)
    model, metadata = load_model(args.weights)
    height, width = json.loads(metadata["input_size"])
    size = parse_size(args.size) if args.size else (height, width)
    return Predictor(model, input_size=size, device=resolve_device(args.device))


def open_pictures(args: argparse.Namespace, *, cache: bool) -> Source:
    """The data set of `--data`."""
    from lmwp_models.cli.output import print_skipped, progress
    from lmwp_models.data import open_source

    with progress("read pictures") as report:
        source = open_source(
            args.data,
            list_file=args.list_file,
            skip_bad=args.skip_bad,
            cache=cache,
            on_progress=report,
        )
    print_skipped(source.skipped)
    return source


def parse_size(text: str) -> InputSize:
    """`224` or `240x304` as (height, width); `native` as it is."""
    if text == "native":
        return "native"
    try:
        sides = [int(side) for side in text.lower().split("x")]
        height, width = sides if len(sides) == 2 else sides * 2
    except ValueError:
        height = width = 0
    if height < 1 or width < 1:
        raise UserError(f"--size {text}: expected N, HxW or native, e.g. 224 or 240x304")
    return height, width


def positive_int(text: str) -> int:
    """An argparse type."""
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text!r}")
    return value
