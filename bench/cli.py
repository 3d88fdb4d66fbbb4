"""`lmwp bench`: ops, networks and training steps against what a user might pick instead."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from lmwp_models.cli.options import parse_size, positive_int
from lmwp_models.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import torch

    from lmwp_bench.results import Row

SUMMARY = "time ops and networks against what a user might pick instead"

# Ratios of two runs agree within 10 % after some twenty rounds of a second.
_NETWORK_SECONDS = 20
_PARALLEL = 3  # networks prepared at a time; whoever is timed is alone


def configure(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="suite", metavar="SUITE", required=True)
    ops = commands.add_parser("ops", help="each op at its shapes")
    ops.add_argument("--op", type=_names, help="ops, separated by commas (default: all)")
    ops.add_argument("--shape", type=_names, help="names of shapes (default: all of the ops)")
    ops.add_argument("--direction", choices=("forward", "forward+backward", "both"), default="both")
    ops.set_defaults(run_suite=_ops)
    models = commands.add_parser("models", help="whole networks, inference")
    training = commands.add_parser("training", help="training steps, part by part")
    for network in (models, training):
        network.add_argument(
            "--models",
            type=_names,
            required=network is training,
            default=["csnet-l-x1", "csnet-l-x2", "csnet-x1"],
            help="networks, separated by commas; csnet-table and lmwpnet-table are those of the "
            "published run-time tables",
        )
        network.add_argument("--size", type=_names, help="input sizes, N or HxW (default: its own)")
    models.set_defaults(run_suite=_models)
    training.set_defaults(run_suite=_training)
    _add_common(ops, batch="1", seconds=2)
    _add_common(models, batch="1", seconds=_NETWORK_SECONDS)
    _add_common(training, batch="8", seconds=_NETWORK_SECONDS)
    report = commands.add_parser("report", help="one HTML page of a folder of results")
    report.add_argument("folder", type=Path)
    report.add_argument("--out", type=Path, help="the page (default: FOLDER/report.html)")
    report.set_defaults(run_suite=_report)
    hardware = commands.add_parser("hardware", help="the table of verified hardware, as Markdown")
    hardware.add_argument("folder", type=Path)
    hardware.set_defaults(run_suite=_hardware)


def run(args: argparse.Namespace) -> int:
    return args.run_suite(args)


def _add_common(parser: argparse.ArgumentParser, batch: str, seconds: int) -> None:
    parser.add_argument("--device", default="auto", help="cpu or cuda (default: cuda if there)")
    parser.add_argument("--threads", type=positive_int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--batch", type=_names, default=[batch], help="batches, e.g. 1,8,32")
    parser.add_argument("--dtype", type=_names, default=["float32"], help="e.g. float32,bfloat16")
    parser.add_argument("--peers", type=_names, default=["all"], help="variants besides eager")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to keep the results")
    parser.add_argument(
        "--seconds",
        type=_seconds,
        default=float(seconds),
        help="time for each way of timing a case, all its variants together (default: %(default)s)",
    )


def _ops(args: argparse.Namespace) -> int:
    import torch

    from lmwp_bench import machine
    from lmwp_bench.ops import OPS
    from lmwp_bench.suites import ops
    from lmwp_models.device import resolve_device, set_up_cpu

    device = resolve_device(args.device)
    names = _chosen("op", args.op or list(OPS), list(OPS))
    shapes = {name: list(OPS[name].shapes) for name in names}
    known = [shape for op_shapes in shapes.values() for shape in op_shapes]
    wanted = _chosen("shape", args.shape or known, known)
    directions = ops.DIRECTIONS if args.direction == "both" else (args.direction,)
    peers = _peers(args.peers, ops.variant_names(device.type))
    dtypes = [getattr(torch, name) for name in _dtypes(args.dtype)]
    batches = _batches(args.batch)
    set_up_cpu(args.threads)
    cache = machine.cache_bytes(device)
    runs = [
        ops.OpRun(OPS[name], shape, batch, dtype, direction, device, args.threads, cache)
        for name in names
        for shape in shapes[name]
        if shape in wanted
        for dtype in dtypes
        for batch in batches
        for direction in directions
        if direction in ops.directions_of(OPS[name])
    ]
    rows = ops.run(runs, peers, args.seconds)
    return _record(args, device, rows)


def _models(args: argparse.Namespace) -> int:
    from lmwp_bench.peers.network import peers_for

    return _networks(args, peers_for)


def _training(args: argparse.Namespace) -> int:
    from lmwp_bench.suites.training import peers_for

    return _networks(args, peers_for)


def _networks(args: argparse.Namespace, peers_for: Callable[[str, bool], list[str]]) -> int:
    from lmwp_bench.networks import bench_network
    from lmwp_bench.suites.network_run import NetworkRun
    from lmwp_bench.suites.pool import Job, run_jobs
    from lmwp_bench.terminal import status
    from lmwp_models.device import resolve_device, set_up_cpu

    device = resolve_device(args.device)
    networks = [bench_network(name) for name in _expanded(args.models)]
    peers = _peers(args.peers, peers_for(device.type, True))
    batches, dtypes = _batches(args.batch), _dtypes(args.dtype)
    sizes = _sizes(args.size)
    set_up_cpu(args.threads)
    jobs = [
        Job(
            args.suite,
            NetworkRun(
                network=network.name,
                batch=batch,
                size=size or network.input_size,
                dtype=dtype,
                device=str(device),
                threads=args.threads,
                peers=tuple(p for p in peers if p in peers_for(device.type, network.ours)),
                seconds=args.seconds,
            ),
        )
        for network in networks
        for dtype in dtypes
        for batch in batches
        for size in sizes
    ]
    # Two tuners would disturb each other on one GPU.
    parallel = _PARALLEL if device.type == "cpu" else 1
    with status() as say:
        return _record(args, device, run_jobs(jobs, parallel=parallel, on_event=say))


def _record(args: argparse.Namespace, device: torch.device, groups: Iterable[list[Row]]) -> int:
    """Print the rows of each case as they come and keep them in `--json`."""
    from lmwp_bench import machine
    from lmwp_bench.results import Results, save
    from lmwp_bench.terminal import print_machine, print_published, print_rows

    results = Results(machine.environment(device, args.threads), machine.speed(device))
    if args.json:
        _claim(args.json)
        save(results, args.json)
    print_machine(results)
    for rows in groups:
        print_rows(rows, results.machine)
        results.rows += rows
        if args.json:
            save(results, args.json)
    print_published(results.rows)
    results.complete = True
    if args.json:
        save(results, args.json)
        print(f"results: {args.json}")
    return 0


def _report(args: argparse.Namespace) -> int:
    from lmwp_bench.report import markdown_table, write_report
    from lmwp_bench.results import load_folder

    page = args.out or args.folder / "report.html"
    for name, results in load_folder(args.folder).items():
        print(f"{name}\n\n{markdown_table(results)}")
    print(f"report: {write_report(args.folder, page)}")
    return 0


def _hardware(args: argparse.Namespace) -> int:
    from lmwp_bench.report import hardware_table

    print(hardware_table(args.folder))
    return 0


def _claim(path: Path) -> None:
    """Refuse to replace a file, and find out now whether one can be written."""
    if path.exists():
        raise UserError(f"--json {path}: exists already; name a new file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x"):
            pass
    except OSError as error:
        raise UserError(f"--json {path}: cannot be written: {error.strerror}") from None


def _expanded(names: Sequence[str]) -> list[str]:
    """Networks with the names of tables replaced by theirs, each once."""
    from lmwp_bench.networks import known_networks
    from lmwp_bench.published import TITLES, networks_of

    found: list[str] = []
    for name in names:
        found += (
            [n for n in networks_of(name) if n in known_networks()] if name in TITLES else [name]
        )
    return list(dict.fromkeys(found))


def _peers(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """The baseline and the chosen peers in the order of `known`."""
    from lmwp_bench.variant import BASELINE

    chosen = known if list(names) == ["all"] else _chosen("peers", names, [*known, "all"])
    return [name for name in known if name == BASELINE or name in chosen]


def _chosen(option: str, names: Sequence[str], known: Sequence[str]) -> list[str]:
    for name in names:
        if name not in known:
            listed = ", ".join(dict.fromkeys(known))
            raise UserError(f"--{option} {name}: no such thing here; there are {listed}")
    return list(names)


def _dtypes(names: Sequence[str]) -> list[str]:
    return _chosen("dtype", names, ["float32", "float16", "bfloat16"])


def _batches(texts: Sequence[str]) -> list[int]:
    for text in texts:
        if not text.isdecimal() or int(text) < 1:
            raise UserError(f"--batch {text}: expected whole numbers from 1, e.g. 1,8,32")
    return [int(text) for text in texts]


def _sizes(texts: Sequence[str] | None) -> list[tuple[int, int] | None]:
    """None stands for the network's own size."""
    sizes: list[tuple[int, int] | None] = []
    for text in texts or ():
        size = parse_size(text)
        if size == "native":
            raise UserError("--size native: expected N or HxW, e.g. 224 or 240x304")
        sizes.append(size)
    return sizes or [None]


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value
