"""Small facts that outlive the process: one JSON file each, in the user's cache folder.

A file is written whole or not at all, so processes share the folder without locks; the last of
two writers of one fact wins. What cannot be read or written is done without, with one warning.
"""

import hashlib
import json
import os
import re
import uuid
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FORMAT = 1
FOLDER = "LMWP_CACHE_DIR"

Key = Mapping[str, Any]
"""What a fact is about: plain JSON values; all of them have to match."""

_warned = False


def folder() -> Path:
    """`kernels` in $LMWP_CACHE_DIR, else in `lmwp` of $XDG_CACHE_HOME or ~/.cache."""
    if root := os.environ.get(FOLDER):
        return Path(root) / "kernels"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lmwp" / "kernels"


def load(kind: str, key: Key) -> Any:
    """The fact of this kind stored under `key`, or None."""
    try:
        content = _read(_path(kind, key))
    except FileNotFoundError:
        return None
    except (OSError, RuntimeError, ValueError) as error:
        _warn(f"cannot be read: {error}")
        return None
    return content["value"] if content["key"] == dict(key) else None


def store(kind: str, key: Key, value: Any) -> None:
    """Keep `value`, not None, under `key`."""
    content = {"format": FORMAT, "key": dict(key), "value": value}
    try:
        path = _path(kind, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, json.dumps(content, indent=2) + "\n")
    except (OSError, RuntimeError) as error:
        _warn(f"cannot be written: {error}")


def entries(kind: str, key: Key) -> Iterator[tuple[dict[str, Any], Any]]:
    """Every (key, value) of this kind whose key holds all of `key`; damaged files are left out."""
    try:
        paths = sorted((folder() / kind).glob("*.json"))
    except (OSError, RuntimeError):
        return
    for path in paths:
        try:
            content = _read(path)
        except (OSError, ValueError):
            continue
        if content["key"].items() >= key.items():
            yield content["key"], content["value"]


def _path(kind: str, key: Key) -> Path:
    """The folder says the kind, the name what a person looks for, its end tells keys apart."""
    digest = hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()
    label = "-".join(str(value) for value in list(key.values())[:4])
    return folder() / kind / f"{re.sub(r'[^A-Za-z0-9_]+', '-', label)}-{digest[:16]}.json"


def _read(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} is damaged")
    if content.get("format") != FORMAT:  # of another version of this package
        return {"key": {}, "value": None}
    if not isinstance(content.get("key"), dict) or "value" not in content:
        raise ValueError(f"{path.name} is damaged")
    return content


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def _warn(problem: str) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"lmwp_ops: the cache of checked kernels {problem}; doing without it "
            f"(set {FOLDER} to a folder of your own)",
            stacklevel=2,
        )
