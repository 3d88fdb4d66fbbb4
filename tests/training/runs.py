"""The small recipe as a command line, for tests that run it as a process."""

import sys
import time

import pytest

from .small import SMALL

START = [
    "csnet-quick.toml",
    "data.train=synthetic:64",
    "data.holdout=4",
    "data.image_size=32",
    *(f"model.options.{key}={SMALL[key]}" for key in ("stages", "blocks")),
    *(f"model.options.head.{key}={value}" for key, value in SMALL["head"].items()),
    "train.epochs=3",
    "train.batch_size=4",
    "train.checkpoint_every=7",
    "train.validate_every=3",
]


def command(*words):
    return [sys.executable, "-m", "lmwp_models.cli", "train", *words, "--threads", "1"]


def wait_for_step(log, step, process):
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and process.poll() is None:
        if log.exists() and f'"step": {step},' in log.read_text():
            return
        time.sleep(0.02)
    pytest.fail(f"step {step} was not reached: {process.communicate()}")
