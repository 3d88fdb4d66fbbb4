"""`lmwp info`: what is installed and what would run."""

from __future__ import annotations

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    from lmwp_models.cli.output import print_json
    from lmwp_ops.env import collect, render

    report = collect()
    if args.json:
        print_json(report)
    else:
        print(render(report))
    return 0
