"""`lmwp demo`: the main job from pictures to report, in minutes."""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lmwp_models.cli.options import add_skip_bad_option, positive_int, skip_bad_override

if TYPE_CHECKING:
    from torch import nn

    from lmwp_models.cli.session import Session
    from lmwp_models.evaluation import Evaluation, ImageScores
    from lmwp_models.predict import Predictor
    from lmwp_models.report import RankedPanel

SHOWN = 4  # pictures at each end of the ranking
TIMED = 20  # forward passes behind the latency


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", help="section.key=value, as for train")
    parser.add_argument("--data", help="data set folder (default: the embedded synthetic set)")
    parser.add_argument("--out", type=Path, help="run folder (default: runs/demo-DATE-TIME)")
    parser.add_argument("--recipe", default="demo.toml", help="recipe (default: demo.toml)")
    add_skip_bad_option(parser)
    parser.add_argument("--threads", type=positive_int, help="CPU threads (default: torch's)")


def run(args: argparse.Namespace) -> int:
    from lmwp_models.cli.session import Session
    from lmwp_models.cli.train import start_run
    from lmwp_models.report import Report, write_report
    from lmwp_models.training.recipe import load_recipe

    overrides = [f"data.train={args.data}"] if args.data else []
    recipe = load_recipe(args.recipe, [*overrides, *args.overrides, *skip_bad_override(args)])
    folder = args.out or Path("runs") / time.strftime("demo-%Y%m%d-%H%M%S")
    start_run(folder, recipe)
    with Session(recipe, folder, threads=args.threads) as session:
        started = time.perf_counter()
        if status := session.fit():
            return status
        seconds = time.perf_counter() - started
    predictor = session.predictor(session.trainer.trained)
    trained = _evaluate(session, predictor, "evaluate")
    baseline = _evaluate(session, centre_prior, "evaluate centre prior")
    ranking = sorted(trained.images, key=_max_f, reverse=True)
    report = Report(
        title=f"{recipe.model.name} trained on {recipe.data.train}",
        facts={
            "network": recipe.model.name,
            "training": f"{recipe.train.epochs} epochs of {len(session.trainer.dataset)} pictures "
            f"at {recipe.data.image_size} x {recipe.data.image_size} in {seconds:.0f} s",
            "evaluated on": f"{trained.count} held-out pictures",
        },
        scores={
            protocol: {
                metric: (baseline.metrics[protocol][metric], value)
                for metric, value in metrics.items()
            }
            for protocol, metrics in trained.metrics.items()
        },
        best=_panels(session, predictor, ranking[:SHOWN]),
        worst=_panels(session, predictor, ranking[-SHOWN:]),
        cost=_cost(session.trainer.model, recipe.data.image_size),
        environment=_environment(session),
        commands=[
            f"lmwp eval --weights {folder}/final.safetensors --data FOLDER",
            f"lmwp predict FOLDER --weights {folder}/final.safetensors --out maps --overlay",
            "lmwp train csnet-quick.toml data.train=FOLDER",
        ],
        log=folder / "log.jsonl",
    )
    path = write_report(folder / "report.html", report)
    scores = trained.metrics["salmetric"]
    print(f"max F {scores['max_f_dataset']:.4f}, MAE {scores['mae']:.4f} (salmetric)")
    print(f"report: {path}")
    return 0


def centre_prior(image: np.ndarray) -> np.ndarray:
    """The map that needs no network: a Gaussian at the centre, a quarter of the picture wide."""
    rows, columns = (np.linspace(-2, 2, side) for side in image.shape[:2])
    bump = np.exp(-0.5 * (rows[:, None] ** 2 + columns**2))
    return (255 * bump).astype(np.uint8)


def _evaluate(
    session: Session, predict: Callable[[np.ndarray], np.ndarray], description: str
) -> Evaluation:
    from lmwp_models.cli.output import progress
    from lmwp_models.evaluation import evaluate

    with progress(description) as report:
        return evaluate(predict, session.validation_source, per_image=True, on_progress=report)


def _max_f(image: ImageScores) -> float:
    return image.scores["salmetric"]["max_f_dataset"]


def _panels(
    session: Session, predictor: Predictor, images: Sequence[ImageScores]
) -> list[RankedPanel]:
    from lmwp_models.data.panels import Panel
    from lmwp_models.report import RankedPanel

    source = session.validation_source
    panels = []
    for image in images:
        sample = source[source.names.index(image.name)]
        panel = Panel(image.name, sample.image, sample.mask, predictor(sample.image))
        mae = image.scores["salmetric"]["mae"]
        panels.append(RankedPanel(panel, {"max F": _max_f(image), "MAE": mae}))
    return panels


def _cost(model: nn.Module, side: int) -> dict[str, str]:
    import torch

    from lmwp_models.complexity import summarize

    cost = summarize(model, (side, side))
    device = next(model.parameters()).device
    picture = torch.randn(1, 3, side, side, device=device)
    times = []
    with torch.inference_mode():
        for _ in range(TIMED + 3):
            started = time.perf_counter()
            model(picture).cpu()
            times.append(1e3 * (time.perf_counter() - started))
    return {
        "parameters": f"{cost.params:,}",
        f"MACs at {side} x {side}": f"{cost.macs / 1e6:.1f} M",
        "paper FLOPs": f"{cost.paper_flops / 1e6:.1f} M",
        "one picture": f"{statistics.median(times[3:]):.1f} ms, median of {TIMED}, "
        f"{device.type}, {torch.get_num_threads()} threads",
    }


def _environment(session: Session) -> dict[str, str]:
    import torch

    from lmwp_ops.env import collect

    report = collect()
    chosen = {
        op: next(name for name, refusal in backends.items() if refusal is None)
        for op, backends in report["ops"].items()
    }
    return {
        "PyTorch": torch.__version__,
        "Python": platform.python_version(),
        "processor": f"{platform.machine()}, {torch.get_num_threads()} threads, "
        f"instruction set {report['instruction_set']['chosen'] or 'unknown'}",
        "device": str(session.trainer.device),
        **{f"back end of {op}": backend for op, backend in chosen.items()},
    }
