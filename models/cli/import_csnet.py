"""`lmwp import-csnet`: the authors' weight files, converted."""

from __future__ import annotations

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("weights", type=Path, help="their .pth.tar, or the same as .safetensors")
    parser.add_argument("config", type=Path, help="their .bin channel list, or the same as .json")
    parser.add_argument("--out", type=Path, required=True, help="file to write (.safetensors)")
    parser.add_argument("--force", action="store_true", help="replace an existing file")


def run(args: argparse.Namespace) -> int:
    from lmwp_models.importer import import_csnet

    model = import_csnet(args.weights, args.config, args.out, force=args.force)
    params = sum(p.numel() for p in model.parameters())
    print(f"{args.out}: CSNet with {params:,} parameters")
    return 0
