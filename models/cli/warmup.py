"""`lmwp warmup`: check, compile and tune the GPU kernels ahead."""

from __future__ import annotations

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ops", nargs="*", help="ops to prepare (default: all)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    import lmwp_ops
    from lmwp_models.cli.output import print_json
    from lmwp_models.errors import UserError

    try:
        report = lmwp_ops.warmup(args.ops or None, progress=True)
    except ValueError as error:
        raise UserError(str(error)) from error
    if args.json:
        print_json(report.to_dict())
    else:
        print(report)
    return 1 if any(row.verdict == "failed" for row in report.rows) else 0
