"""The two ways in which a build cannot be what was asked for."""

from setuptools.errors import BaseError


class UnavailableError(Exception):
    """Something a mode needs is missing; str(e) says what, in one line."""


class BuildError(BaseError):
    """A build asked for by name cannot be made; setuptools prints str(e) as one line."""
