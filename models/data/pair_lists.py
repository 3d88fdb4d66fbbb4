"""List files of a data set: a name a line, or an image path and a mask path a line."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from lmwp_models.data.decode import SUFFIXES
from lmwp_models.data.folders import pictures
from lmwp_models.errors import UserError


def read_entries(path: Path) -> list[str]:
    """The lines of a list, without blanks, # comments and repetitions.

    Raises:
        UserError: the file is not text, or holds no entry.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"list file {path}: not a readable text file ({error})") from error
    lines = (line.strip().replace("\\", "/") for line in text.splitlines())
    entries = list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if not entries:
        raise UserError(f"list file {path}: holds no names")
    return entries


def stem(entry: str) -> str:
    """'/image/a.b.jpg' -> 'a.b'; a bare name with dots stays whole."""
    name = PurePosixPath(entry)
    return name.stem if name.suffix.lower() in SUFFIXES else name.name


def names_two_files(entries: Sequence[str]) -> bool:
    """Whether the lines hold an image and a mask each, judged by the first one."""
    return sum(part.lower().endswith(tuple(SUFFIXES)) for part in _parts(entries[0])) == 2


def resolve_pairs(
    entries: Sequence[str], bases: Sequence[Path]
) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Look up 'image mask' lines: (pairs found, lines that name a file that is not there).

    The only file of that stem counts as found whatever its suffix, since copies of a data set are
    often stored in another format than their list says.
    """
    find = _Finder(bases)
    found, lost = [], []
    for entry in entries:
        paths = [path for part in _parts(entry) if (path := find(part)) is not None]
        if len(paths) == 2:
            found.append((paths[0], paths[1]))
        else:
            lost.append(entry)
    return found, lost


def _parts(entry: str) -> list[str]:
    """Split at tabs or commas; else at the blank after the first picture suffix."""
    if "\t" in entry or "," in entry:
        return [part.strip() for part in re.split(r"[\t,]", entry) if part.strip()]
    suffixes = "|".join(re.escape(suffix) for suffix in SUFFIXES)
    if match := re.match(rf"(.+?(?:{suffixes}))\s+(\S.*)$", entry, re.IGNORECASE):
        return list(match.groups())
    return [entry]


class _Finder:
    """Files by the paths of a list; each folder is read once."""

    def __init__(self, bases: Sequence[Path]) -> None:
        self.bases = bases
        self.folders: dict[Path, dict[str, list[Path]]] = {}

    def __call__(self, part: str) -> Path | None:
        if Path(part).is_absolute() and Path(part).is_file():
            return Path(part)
        for path in (base / part.lstrip("/") for base in self.bases):
            if path.is_file():
                return path
            if len(same_stem := self._stems(path.parent)[path.stem.casefold()]) == 1:
                return same_stem[0]
        return None

    def _stems(self, folder: Path) -> dict[str, list[Path]]:
        if folder not in self.folders:
            stems = self.folders[folder] = defaultdict(list)
            for path in pictures(folder) if folder.is_dir() else ():
                stems[path.stem.casefold()].append(path)
        return self.folders[folder]
