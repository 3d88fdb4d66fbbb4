"""`lmwp eval`: score a network, or maps on disk, on a data set."""

from __future__ import annotations

import argparse
from pathlib import Path

from lmwp_models.cli.options import add_data_options, add_network_options
from lmwp_models.errors import UserError


def configure(parser: argparse.ArgumentParser) -> None:
    add_data_options(parser)
    add_network_options(parser, required=False)
    parser.add_argument("--maps", type=Path, help="score the PNG maps in this folder instead")
    parser.add_argument(
        "--protocol",
        choices=("salmetric", "pysod", "both"),
        default="both",
        help="how to score: as the CSNet paper, as PySODMetrics, or both (default)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def run(args: argparse.Namespace) -> int:
    from lmwp_models.cli.options import make_predictor, open_pictures
    from lmwp_models.cli.output import print_json, print_mapping, progress
    from lmwp_models.evaluation import evaluate, evaluate_maps

    if (args.weights is None) == (args.maps is None):
        raise UserError("give either --weights FILE or --maps FOLDER")
    protocols = ("salmetric", "pysod") if args.protocol == "both" else (args.protocol,)
    source = open_pictures(args, cache=False)
    with progress("evaluate") as report:
        if args.maps:
            result = evaluate_maps(args.maps, source, protocols=protocols, on_progress=report)
        else:
            predictor = make_predictor(args)
            result = evaluate(predictor, source, protocols=protocols, on_progress=report)
    if args.json:
        print_json({"data": args.data, "pictures": result.count, **result.metrics})
        return 0
    for protocol, metrics in result.metrics.items():
        print_mapping(metrics, f"{protocol}, {result.count} pictures")
    return 0
