"""`lmwp predict`: saliency maps for an image or a folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lmwp_models.cli.options import add_network_options


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", type=Path, help="an image, or a folder of images")
    parser.add_argument("--out", type=Path, required=True, help="folder for the maps (PNG)")
    parser.add_argument("--overlay", action="store_true", help="also write image | map | overlay")
    parser.add_argument("--overwrite", action="store_true", help="replace maps that exist")
    add_network_options(parser)


def run(args: argparse.Namespace) -> int:
    from lmwp_models.cli.options import make_predictor
    from lmwp_models.cli.output import progress
    from lmwp_models.predict import predict_folder

    predictor = make_predictor(args)
    with progress("predict") as report:
        result = predict_folder(
            predictor,
            args.input,
            args.out,
            overlay=args.overlay,
            overwrite=args.overwrite,
            on_progress=report,
        )
    for path, reason in result.failed:
        print(f"lmwp predict: {path}: {reason}", file=sys.stderr)
    print(f"{len(result.written)} written to {args.out}, {len(result.failed)} failed")
    return 1 if result.failed else 0
