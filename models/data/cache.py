"""Decoded data sets on disk: decode once, then map the pixels in every later epoch and run.

A cache is found by what is in the files, not by where they lie: its key is a digest of every file's
bytes, the names and the decode settings. So moved or copied data finds its cache, and a changed
file makes a new one. Old caches are never deleted; remove the folder to free the space.
"""

import json
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

import PIL

from lmwp_models.data.decode import decode_image, decode_mask, read_bytes, shrink
from lmwp_models.data.layouts import Pair
from lmwp_models.data.sample_file import (
    PARTIAL_SUFFIX,
    DamagedFileError,
    SampleReader,
    write_samples,
)
from lmwp_models.data.sources import Sample, check_sizes, digest
from lmwp_models.errors import UserError

Progress = Callable[[int, int], None]
Digests = tuple[str, str]
T = TypeVar("T")
R = TypeVar("R")

_DECODE_VERSION = 1  # to be raised whenever the same bytes decode to other pixels
_WAY_OUT = "mend it, or leave such pictures out with --skip-bad"
_WORKERS = min(8, os.cpu_count() or 1)


def default_cache_dir() -> Path:
    """$LMWP_CACHE_DIR, else `lmwp` in the user's cache folder ($XDG_CACHE_HOME or ~/.cache)."""
    if folder := os.environ.get("LMWP_CACHE_DIR"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lmwp"


class CachedSource:
    """Samples out of a cache file, as read-only views.

    A sample whose cached pixels turn out damaged is decoded from its own files, and the cache is
    removed so that the next run builds it afresh.
    """

    def __init__(
        self,
        reader: SampleReader,
        pairs: Sequence[Pair],
        skipped: Sequence[str] = (),
        max_side: int | None = None,
    ) -> None:
        self.reader = reader
        self.pairs = list(pairs)
        self.skipped = list(skipped)
        self.max_side = max_side

    @property
    def path(self) -> Path:
        """The cache file."""
        return self.reader.path

    @cached_property
    def names(self) -> list[str]:
        return self.reader.index.names

    @cached_property
    def contents(self) -> list[str]:
        return self.reader.index.contents

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        try:
            return self.reader[index]
        except DamagedFileError as error:
            self.path.unlink(missing_ok=True)
            warnings.warn(
                f"{self.path}: {error}; decoding again, the next run rebuilds it", stacklevel=2
            )
            return decode_pair(self.pairs[index], self.max_side)


def open_cached(
    pairs: Sequence[Pair],
    *,
    cache_dir: str | Path | None = None,
    max_side: int | None = None,
    skip_bad: bool = False,
    on_progress: Progress | None = None,
) -> CachedSource:
    """Open the cache of a data set; build it where there is none or it is damaged.

    Processes that want the same cache at once wait for the first one to build it.

    Args:
        pairs: what `find_pairs` returned.
        cache_dir: default as `default_cache_dir`.
        max_side: pictures with a longer side are shrunk to it, by averaging, before they are kept.
        skip_bad: leave out pictures that cannot be decoded (see `CachedSource.skipped`).
        on_progress: called with (done, total), first while the files are read for their digests,
            then, if there is no cache yet, from 0 again while they are decoded.

    Raises:
        UserError: a picture is broken and not to be skipped, or the cache cannot be written.
    """
    report = on_progress or (lambda done, total: None)
    digests = _digests(pairs, report)
    path = Path(cache_dir or default_cache_dir()) / _key(pairs, digests, max_side) / "samples"
    try:
        reader = _try_open(path) or _build(path, pairs, digests, max_side, skip_bad, report)
    except OSError as error:
        raise UserError(
            f"cannot keep the decoded pictures in {path.parent}: {error.strerror or error}; "
            "free space there or set LMWP_CACHE_DIR to another folder"
        ) from error
    have = set(reader.index.names)
    skipped = [
        line
        for pair in pairs
        if pair.name not in have and (line := _fault(pair, max_side)) is not None
    ]
    if skipped and not skip_bad:
        raise UserError(f"{skipped[0]}; {_WAY_OUT}")
    return CachedSource(reader, [p for p in pairs if p.name in have], skipped, max_side)


def readable(
    pairs: Sequence[Pair], on_progress: Progress | None = None
) -> tuple[list[Pair], list[str]]:
    """Decode every pair once: (the good ones, a line for each of the others)."""
    report = on_progress or (lambda done, total: None)
    faults = list(_in_order(partial(_fault, max_side=None), pairs, report))
    good = [pair for pair, fault in zip(pairs, faults, strict=True) if fault is None]
    return good, [fault for fault in faults if fault is not None]


def decode_pair(pair: Pair, max_side: int | None = None, expected: Digests | None = None) -> Sample:
    """Decode the files of a pair; UserError if one is broken, or they do not fit together."""
    image_bytes, mask_bytes = read_bytes(pair.image), read_bytes(pair.mask)
    if expected is not None and expected != (digest(image_bytes), digest(mask_bytes)):
        raise UserError(f"{pair.image} or its mask changed while the data set was being read")
    image = decode_image(image_bytes, pair.image)
    mask = decode_mask(mask_bytes, pair.mask)
    sample = check_sizes(Sample(pair.name, image, mask), pair)
    if max_side is None:
        return sample
    return Sample(pair.name, shrink(sample.image, max_side), shrink(sample.mask, max_side))


def _fault(pair: Pair, max_side: int | None) -> str | None:
    try:
        decode_pair(pair, max_side)
    except UserError as error:
        return str(error)
    return None


def _digests(pairs: Sequence[Pair], report: Progress) -> list[Digests]:
    def of_pair(pair: Pair) -> Digests:
        return of_file(pair.image), of_file(pair.mask)

    def of_file(path: Path) -> str:
        try:
            return digest(read_bytes(path))
        except UserError:
            return "unreadable"  # decoding says why

    return list(_in_order(of_pair, pairs, report))


def _key(pairs: Sequence[Pair], digests: Sequence[Digests], max_side: int | None) -> str:
    names = [pair.name for pair in pairs]
    settings = [_DECODE_VERSION, PIL.__version__, max_side]
    return digest(json.dumps([settings, names, digests]).encode())


def _try_open(path: Path) -> SampleReader | None:
    try:
        return SampleReader(path)
    except (FileNotFoundError, DamagedFileError):
        return None


def _build(
    path: Path,
    pairs: Sequence[Pair],
    digests: Sequence[Digests],
    max_side: int | None,
    skip_bad: bool,
    report: Progress,
) -> SampleReader:
    def decode(job: tuple[Pair, Digests]) -> tuple[Sample, str] | None:
        pair, expected = job
        try:
            return decode_pair(pair, max_side, expected), expected[0]
        except UserError as error:
            if skip_bad:
                return None
            raise UserError(f"{error}; {_WAY_OUT}") from error

    path.parent.mkdir(parents=True, exist_ok=True)
    with _exclusive(path.parent) as locked:
        if (reader := _try_open(path)) is not None:
            return reader
        if locked:
            for left_over in path.parent.glob(f"*{PARTIAL_SUFFIX}"):
                left_over.unlink()
        jobs = list(zip(pairs, digests, strict=True))
        write_samples(path, (done for done in _in_order(decode, jobs, report) if done))
        return SampleReader(path)


@contextmanager
def _exclusive(folder: Path) -> Iterator[bool]:
    """Hold a lock that ends with the process; yields False where there is no such thing.

    Without it two builders do the work twice, each in a file of its own: wasteful, not wrong.
    """
    try:
        import fcntl
    except ImportError:
        yield False
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            locked = True
        except OSError:  # some network file systems
            locked = False
        yield locked
    finally:
        os.close(descriptor)


def _in_order(function: Callable[[T], R], items: Sequence[T], report: Progress) -> Iterator[R]:
    """Map on a few threads, in order, with few results waiting in memory at a time."""
    with ThreadPoolExecutor(_WORKERS) as pool:
        pending: deque[Future[R]] = deque()
        try:
            for done in range(len(items)):
                while len(pending) < 4 * _WORKERS and done + len(pending) < len(items):
                    pending.append(pool.submit(function, items[done + len(pending)]))
                yield pending.popleft().result()
                report(done + 1, len(items))
        finally:
            for future in pending:
                future.cancel()
