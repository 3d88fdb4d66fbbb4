"""Imports point one way: bench -> models -> lmwp_ops, and downwards inside each."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {"lmwp_ops": "lmwp_ops", "lmwp_models": "models", "lmwp_bench": "bench"}

# Which of our packages, and which of their parts, a package may import. Packages that are
# missing here come from elsewhere.
PACKAGES = {
    "lmwp_ops": set(),
    "lmwp_models": {"lmwp_ops"},
    "lmwp_bench": {"lmwp_ops", "lmwp_models"},
}
OPS_NEEDS = {"torch", "numpy", "triton"}
OPS_MAY_HAVE = {"safetensors"}

# Part of a package -> its layer; layer -> the layers it may import. A part may import itself.
# A module of lmwp_models that is not named here belongs to the networks.
LAYER_OF = {
    "lmwp_ops": {
        "": "top",
        "env": "top",
        "nn": "nn",
        "ops": "ops",
        "_autocast": "base",
        "_autograd": "base",
        "_backends": "base",
        "_disk_cache": "base",
        "_dispatch": "base",
        "_examples": "base",
        "_gpu": "base",
        "_host": "base",
        "_layout": "base",
        "_library": "base",
        "_loader": "base",
        "_registration": "base",
        "_tables": "base",
        "_triton": "base",
        "_tuning": "base",
        "_verification": "base",
        "_warmup": "base",
    },
    "lmwp_models": {
        "": "top",
        "cli": "cli",
        "training": "job",
        "evaluation": "job",
        "predict": "job",
        "importer": "job",
        "report": "job",
        "data": "data",
        "device": "base",
        "errors": "base",
    },
    "lmwp_bench": {
        "cli": "top",
        "gate": "top",
        "gpu_check": "top",
        "gpu_plan": "top",
        "terminal": "top",
        "regression": "top",
        "report": "report",
        "suites": "suites",
        "machine": "machine",
        "peers": "peers",
        "ops": "subject",
        "networks": "subject",
        "published": "subject",
        "rivals": "subject",
        "accuracy": "base",
        "measure": "base",
        "memory": "base",
        "results": "base",
        "timing": "base",
        "variant": "base",
    },
}
MAY_IMPORT = {
    "lmwp_ops": {
        "top": {"nn", "ops", "base"},
        "nn": {"ops", "base"},
        "ops": {"base"},
        "base": {"base"},
    },
    "lmwp_models": {
        "top": {"network"},
        "cli": {"job", "data", "network", "base", "top"},
        "job": {"data", "network", "base"},
        "data": {"base"},
        "network": {"network", "base"},
        "base": {"base"},
    },
    "lmwp_bench": {
        "top": {"top", "report", "suites", "machine", "peers", "subject", "base"},
        "report": {"base"},
        "suites": {"peers", "subject", "base"},
        "machine": {"peers"},
        "peers": {"base"},
        "subject": {"subject", "base"},
        "base": {"base"},
    },
}


def imported(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """Dotted name of each import, relative ones as '.', and whether it is made on first use."""

    def visit(node: ast.AST, lazy: bool) -> Iterator[tuple[str, bool]]:
        if isinstance(node, ast.Import):
            yield from ((alias.name, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield ".", lazy
            else:
                yield from ((f"{node.module}.{alias.name}", lazy) for alias in node.names)
        inner = lazy or isinstance(node, ast.FunctionDef)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inner)

    return visit(tree, False)


def violations(module: str, source: str) -> list[str]:
    """Every import in `source`, the text of `module`, that points the wrong way."""
    package = module.split(".")[0]
    found = []
    for name, lazy in imported(ast.parse(source)):
        problem = _problem(module, package, name, lazy)
        if problem:
            found.append(f"{module} imports {name}: {problem}")
    return found


def _problem(module: str, package: str, name: str, lazy: bool) -> str | None:
    target = name.split(".")[0]
    if name == ".":
        return "imports are absolute"
    if target == package:
        return _inner_problem(package, module, name)
    if target in PACKAGES:
        if target not in PACKAGES[package]:
            return f"{package} may not import {target}"
        if target == "lmwp_ops" and any(part.startswith("_") for part in name.split(".")):
            return "private to lmwp_ops"
    elif target in ("build_tools", "tests"):
        return "not part of the installation"
    elif package == "lmwp_ops" and target not in sys.stdlib_module_names:
        if target not in OPS_NEEDS | OPS_MAY_HAVE:
            return f"lmwp_ops needs {', '.join(sorted(OPS_NEEDS))} only"
        optional = target == "triton" or target in OPS_MAY_HAVE
        if optional and not lazy and not module.endswith("_kernels"):
            return f"{target} is imported lazily"
    return None


def _inner_problem(package: str, module: str, name: str) -> str | None:
    if package not in LAYER_OF:
        return None
    importer, target = _layer(package, module), _layer(package, name)
    for layer, part in ((importer, module), (target, name)):
        if layer is None:
            return f"{part} has no layer in this test"
    if _part(module) == _part(name) or target in MAY_IMPORT[package][importer]:
        return None
    return f"layer {importer} may not import layer {target}"


def _layer(package: str, name: str) -> str | None:
    default = "network" if package == "lmwp_models" else None
    return LAYER_OF[package].get(_part(name), default)


def _part(name: str) -> str:
    return [*name.split("."), ""][1]


def modules() -> list[tuple[str, Path]]:
    found = []
    for package, folder in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found.append((".".join((package, *parts)).removesuffix(".__init__"), path))
    return found


def test_every_import_points_down() -> None:
    found = [v for module, path in modules() for v in violations(module, path.read_text())]
    assert not found, "\n".join(found)


def test_modules_are_found() -> None:
    names = [name for name, _ in modules()]
    assert {"lmwp_ops", "lmwp_ops._loader", "lmwp_models.errors"} <= set(names)


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("lmwp_ops.env", "import lmwp_models.csnet", "may not import lmwp_models"),
        ("lmwp_ops.env", "from lmwp_bench import x", "may not import lmwp_bench"),
        ("lmwp_ops.env", "import scipy.ndimage", "needs numpy, torch, triton only"),
        ("lmwp_ops.ops.a.op", "import triton", "triton is imported lazily"),
        ("lmwp_ops.ops.a.weight", "import safetensors", "safetensors is imported lazily"),
        ("lmwp_ops.ops.a.op", "from lmwp_ops.nn import A", "layer ops may not import layer nn"),
        ("lmwp_ops._loader", "def f():\n  from lmwp_ops.ops import a", "layer base"),
        ("lmwp_ops.nn.a", "from lmwp_ops import a", "no layer"),
        ("lmwp_ops.nn.a", "import lmwp_ops", "layer nn may not import layer top"),
        ("lmwp_models.csnet", "import lmwp_bench", "may not import lmwp_bench"),
        ("lmwp_models.csnet", "from lmwp_ops import _loader", "private"),
        ("lmwp_models.csnet", "from .errors import UserError", "absolute"),
        ("lmwp_models.csnet", "from lmwp_models.data import a", "layer network"),
        ("lmwp_models.data.a", "from lmwp_models.csnet import b", "layer data"),
        ("lmwp_models.training.a", "from lmwp_models import evaluation", "layer job"),
        ("lmwp_models.predict", "from lmwp_models.cli import main", "layer job"),
        ("lmwp_models.errors", "import lmwp_models.csnet", "layer base"),
        ("lmwp_models.novelty", "import lmwp_models.training", "layer network"),
        ("lmwp_bench.measure", "from lmwp_bench.peers import a", "layer base"),
        ("lmwp_bench.report.a", "from lmwp_bench.suites import a", "layer report"),
        ("lmwp_bench.suites.a", "from lmwp_bench.cli import a", "layer suites"),
        ("lmwp_models.csnet", "import build_tools", "not part of the installation"),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str, complaint: str) -> None:
    found = violations(module, source)
    assert len(found) == 1
    assert complaint in found[0]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("lmwp_ops.nn.a", "from lmwp_ops.ops.a import a"),
        ("lmwp_ops.ops.a.op", "def f():\n  import triton"),
        ("lmwp_ops.ops.a.triton_kernels", "import triton.language as tl"),
        ("lmwp_models.training.a", "from lmwp_models.training.b import c"),
        ("lmwp_models.cli.train", "from lmwp_models.training import a\nimport lmwp_ops"),
        ("lmwp_bench.cli", "import lmwp_models.csnet, lmwp_ops\nfrom lmwp_bench import suites"),
    ],
)
def test_a_right_import_is_let_through(module: str, source: str) -> None:
    assert violations(module, source) == []
