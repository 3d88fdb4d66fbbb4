"""Mistakes that the user can mend."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(Exception):
    """A mistake in what the user gave; its text is one line that says how to mend it.

    The command line prints that line and exits with status 2, without a traceback.
    """


class PeerError(UserError):
    """The `UserError` of another process of the same run, which prints it."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the refusal of a disk into a `UserError` that names `path` and the reason."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
