"""Parses the command line and turns mistakes into one line and exit status 2."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import NoReturn

from lmwp_models.errors import PeerError, UserError

# Command -> (module with `configure(parser)` and `run(args)`, one-line help).
COMMANDS = {
    "models": ("models", "list the networks with their parameters, MACs and paper FLOPs"),
    "train": ("train", "train a network by a recipe, or resume a run"),
    "eval": ("evaluate", "score a network, or a folder of maps, on a data set"),
    "predict": ("predict", "write saliency maps for an image or a folder"),
    "import-csnet": ("import_csnet", "convert the CSNet authors' weight files"),
    "info": ("info", "versions, compiled libraries, devices, back ends"),
    "warmup": ("warmup", "check, compile and tune the GPU kernels ahead of their first use"),
    "demo": ("demo", "train, evaluate and write an HTML report, in minutes"),
}

PLUGINS = "lmwp.commands"
"""Entry points of commands from packages above this one: modules with `SUMMARY` besides."""


class _Parser(argparse.ArgumentParser):
    """Reports a mistake in one line instead of usage and error."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command; the heavy imports wait until a command runs."""
    parser = _Parser(prog="lmwp", description="Small saliency networks: train, evaluate, predict.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    modules = {
        name: (importlib.import_module(f"lmwp_models.cli.{module}"), summary)
        for name, (module, summary) in COMMANDS.items()
    }
    for entry in entry_points(group=PLUGINS):
        module = entry.load()
        modules[entry.name] = (module, module.SUMMARY)
    for name, (module, summary) in modules.items():
        command = commands.add_parser(name, help=summary, description=summary.capitalize() + ".")
        module.configure(command)
        command.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run `lmwp`; returns the exit status (2 for a mistake the user can mend)."""
    args = build_parser().parse_args(argv)
    try:
        return args.run(args)
    except PeerError:
        return 2
    except UserError as error:
        print(f"lmwp {args.command}: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith(("lmwp", "torch")):
            raise
        print(
            f"lmwp {args.command}: needs the package {error.name}; "
            "install it with: pip install 'lmwp-ops[train]'",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print(f"lmwp {args.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output left; keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
