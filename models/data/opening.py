"""One way to name a data set, for every command: a folder or `synthetic`."""

from pathlib import Path

from lmwp_models.data.cache import Progress, open_cached, readable
from lmwp_models.data.layouts import find_pairs
from lmwp_models.data.sources import FolderSource, Source
from lmwp_models.data.synthetic import SyntheticSource
from lmwp_models.errors import UserError

_SYNTHETIC = "synthetic"
_SYNTHETIC_COUNT = 1000


def open_source(
    spec: str | Path,
    *,
    list_file: str | Path | None = None,
    cache: bool = True,
    cache_dir: str | Path | None = None,
    max_side: int | None = None,
    skip_bad: bool = False,
    on_progress: Progress | None = None,
) -> Source:
    """Open a data set.

    Args:
        spec: a folder (see `find_pairs`), or "synthetic" or "synthetic:COUNT".
        list_file: chooses among the files of the folder.
        cache: keep decoded pixels on disk and map them (see `open_cached`); else every access
            decodes.
        cache_dir: where; default `default_cache_dir()`.
        max_side: with the cache, shrink larger pictures to this side.
        skip_bad: leave out files that are broken or have no partner, and list them in
            `.skipped`; without the cache this decodes everything once on opening.
        on_progress: called with (done, total), once over for each pass through the files.

    Raises:
        UserError: the data set is not there, not recognised, broken or incomplete.
    """
    if max_side is not None and max_side < 1:
        raise UserError(f"max_side: expected 1 or more pixels, got {max_side}")
    text = str(spec)
    if text == _SYNTHETIC or text.startswith(f"{_SYNTHETIC}:"):
        return SyntheticSource(_synthetic_count(text))
    lonely: list[str] = []
    pairs = find_pairs(spec, list_file, on_skip=lonely.append if skip_bad else None)
    source: Source
    if cache:
        cached = open_cached(
            pairs,
            cache_dir=cache_dir,
            max_side=max_side,
            skip_bad=skip_bad,
            on_progress=on_progress,
        )
        cached.skipped[:0] = lonely
        source = cached
    else:
        pairs, broken = readable(pairs, on_progress) if skip_bad else (pairs, [])
        source = FolderSource(pairs, lonely + broken)
    if not len(source):
        raise UserError(f"data set {spec}: none of its {len(source.skipped)} pictures is usable")
    return source


def _synthetic_count(text: str) -> int:
    if text == _SYNTHETIC:
        return _SYNTHETIC_COUNT
    count = text.partition(":")[2]
    if not count.isdecimal() or int(count) < 1:
        raise UserError(
            f"data set {text}: expected synthetic or synthetic:COUNT, e.g. synthetic:64"
        )
    return int(count)
