"""Report of this installation: `python -m lmwp_ops.env [--json]`."""

import argparse
import importlib.metadata
import json
import os
import platform
from typing import Any

import torch

from lmwp_ops import _dispatch, _loader, _verification

PACKAGES = ("lmwp-ops", "torch", "numpy", "triton")
PREFIXES = ("LMWP_OPS_",)
VARIABLES = ("CUDA_HOME", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "TRITON_INTERPRET")


def collect() -> dict[str, Any]:
    """Everything the report says, as plain containers ready for JSON."""
    return {
        "versions": _versions(),
        "build": _loader.read_build_info(),
        "libraries": _loader.status(),
        "instruction_set": _instruction_set(),
        "gpus": _gpus(),
        "ops": _dispatch.registered(),
        "verified_kernels": _verification.verified(),
        "environment": _environment(),
    }


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return versions | {"cuda of torch": torch.version.cuda, "platform": platform.platform()}


def _instruction_set() -> dict[str, Any]:
    build = _loader.read_build_info()
    return {"compiled": build["instruction_sets"] if build else [], "chosen": _chosen_set()}


def _chosen_set() -> str | None:
    if _loader.why_not("_host"):
        return None
    from lmwp_ops import _host

    try:
        return _host.cpu_capability()
    except RuntimeError as error:
        return str(error)


def _gpus() -> list[dict[str, Any]]:
    if not torch.cuda.is_available():
        return []
    properties = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [
        {"name": p.name, "capability": f"{p.major}.{p.minor}", "memory_bytes": p.total_memory}
        for p in properties
    ]


def _environment() -> dict[str, str]:
    return {
        key: value
        for key, value in sorted(os.environ.items())
        if key.startswith(PREFIXES) or key in VARIABLES
    }


def render(report: dict[str, Any]) -> str:
    """The report as text, one fact a line."""
    libraries = {name: reason or "loaded" for name, reason in report["libraries"].items()}
    ops = {
        f"{op} {backend}": reason or "usable"
        for op, backends in report["ops"].items()
        for backend, reason in backends.items()
    }
    gpus = {
        f"GPU {i}": f"{gpu['name']}, {gpu['capability']}, {gpu['memory_bytes'] >> 20} MiB"
        for i, gpu in enumerate(report["gpus"])
    }
    sections = {**report, "libraries": libraries, "ops": ops, "gpus": gpus}
    lines = []
    for title, section in sections.items():
        lines.append(title.replace("_", " "))
        facts = [f"  {key}: {_text(value)}" for key, value in (section or {}).items()]
        lines += facts or ["  none"]
    return "\n".join(lines)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key} {_text(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return " ".join(str(item) for item in value) or "none"
    return "none" if value is None else str(value)


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(prog="python -m lmwp_ops.env", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    report = collect()
    print(json.dumps(report, indent=2) if parser.parse_args().json else render(report))


if __name__ == "__main__":
    main()
