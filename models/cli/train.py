"""`lmwp train`: train by a recipe, or resume a run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from lmwp_models.cli.options import add_skip_bad_option, positive_int, skip_bad_override
from lmwp_models.errors import UserError, writing

if TYPE_CHECKING:
    from lmwp_models.training.recipe import Recipe


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", nargs="?", help="a recipe file, or a shipped one by name")
    parser.add_argument("overrides", nargs="*", help="section.key=value, e.g. train.epochs=20")
    parser.add_argument("--out", type=Path, help="run folder (default: runs/RECIPE)")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="continue a stopped run")
    add_skip_bad_option(parser)
    parser.add_argument("--threads", type=positive_int, help="CPU threads (default: torch's)")
    parser.add_argument("--print", action="store_true", help="print the recipe and stop")


def run(args: argparse.Namespace) -> int:
    from lmwp_models.cli.session import Session
    from lmwp_models.training import distributed
    from lmwp_models.training.recipe import load_recipe

    if (args.recipe is None) == (args.resume is None):
        raise UserError("give either a RECIPE or --resume RUN")
    if args.resume and args.out:
        raise UserError("--out goes with a new run: a resumed one stays in its folder")
    if args.resume:
        folder, recipe = args.resume, _saved_recipe(args.resume)
    else:
        recipe = load_recipe(args.recipe, [*args.overrides, *skip_bad_override(args)])
        folder = args.out or Path("runs") / Path(args.recipe).stem
    if args.print:
        print(recipe.model_dump_json(indent=2))
        return 0
    with distributed.process_group(recipe.train.device):
        if not args.resume:
            distributed.on_main(lambda: start_run(folder, recipe))
        with Session(recipe, folder, threads=args.threads) as session:
            trainer = session.trainer
            if args.resume and trainer.resume():
                _say(f"resumed at step {trainer.step} of {trainer.total_steps}")
            if status := session.fit():
                return status
        if trainer.out_of_patience:
            _say(
                f"stopped at step {trainer.step}: no better score for {recipe.train.patience} "
                "validations"
            )
        _say(f"{folder / 'final.safetensors'} written, best of validation: best.safetensors")
    return 0


def start_run(folder: Path, recipe: Recipe) -> None:
    """Make the run folder and write the recipe there; `UserError` if it holds a run already.

    A run that has not reported a step, for a mistake in its recipe, may be started anew.
    """
    from lmwp_models.weights import write_atomically

    log = folder / "log.jsonl"
    if log.exists() and log.stat().st_size:
        raise UserError(
            f"{folder} already holds a run; continue it with --resume {folder}, "
            "or choose another folder with --out"
        )
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "recipe.json", (recipe.model_dump_json(indent=2) + "\n").encode())


def _say(line: str) -> None:
    from lmwp_models.training import distributed

    if distributed.is_main():
        print(line)


def _saved_recipe(folder: Path) -> Recipe:
    from lmwp_models.training.recipe import recipe_from_dict

    path = folder / "recipe.json"
    try:
        tree = json.loads(path.read_text())
    except (OSError, ValueError):
        raise UserError(f"{folder} is no run folder: no readable recipe.json in it") from None
    return recipe_from_dict(tree, where=str(path))
