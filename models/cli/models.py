"""`lmwp models`: the networks and what they cost."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmwp_models.complexity import Counts


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", help="networks to show (default: all)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--parts", action="store_true", help="also show each part of a network")


def run(args: argparse.Namespace) -> int:
    import torch

    from lmwp_models.cli.output import print_json, print_table
    from lmwp_models.complexity import summarize
    from lmwp_models.registry import create_model, list_models, model_info

    rows = []
    for info in [model_info(name) for name in args.names or list_models()]:
        with torch.device("meta"):  # counting needs shapes only
            model = create_model(info.name)
        rows.append((info.name, info.input_size, summarize(model, info.input_size)))
    if args.json:
        print_json(
            [
                {
                    "name": name,
                    "input_size": list(size),
                    "params": cost.params,
                    "macs": cost.macs,
                    "paper_flops": cost.paper_flops,
                    "parts": {part: vars(count) for part, count in cost.by_part.items()},
                }
                for name, size, cost in rows
            ]
        )
        return 0
    table = []
    for name, size, cost in rows:
        table.append((name, f"{size[0]}x{size[1]}", *_figures(cost)))
        if args.parts:
            table += [(f"  {part}", "", *_figures(count)) for part, count in cost.by_part.items()]
    print_table(("network", "input", "params", "MACs (G)", "paper FLOPs (G)"), table)
    print(
        "MACs: multiply-adds of convolutions and linear layers. paper FLOPs: the count behind the\n"
        "CSNet paper's figures, which adds batch norm, PReLU, pooling and resampling."
    )
    return 0


def _figures(cost: Counts) -> tuple[str, str, str]:
    return f"{cost.params:,}", f"{cost.macs / 1e9:.4f}", f"{cost.paper_flops / 1e9:.4f}"
