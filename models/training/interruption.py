"""Signals that ask a run to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Stopped(Exception):  # noqa: N818 - an order, not an error
    """Training was asked to stop by a signal; its state is saved."""

    def __init__(self, signum: int, checkpoint: Path) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}; state saved in {checkpoint}")
        self.signum = signum
        self.checkpoint = checkpoint


class Interruption:
    """Within it SIGTERM and SIGINT only leave their number in `signum`, 0 until then.

    Signals reach the main thread alone; in any other they do what they did.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._previous: dict[int, Callable[..., Any] | int | None] = {}

    def __enter__(self) -> Interruption:
        self.signum = 0
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _remember(self, signum: int, frame: object) -> None:
        self.signum = signum
