"""Logs: what is written can be read, and a disk that refuses is one line."""

import resource

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lmwp_models.data.panels import Panel
from lmwp_models.errors import UserError
from lmwp_models.training.sinks import JsonLinesSink, PanelSink, StepRecord, TensorBoardSink


def record(step):
    return StepRecord(step, 0, 1 / step, 0.5, 1e-3, 40.0)


@pytest.fixture
def panels():
    picture = np.zeros((20, 30, 3), np.uint8)
    return [Panel("a", picture, picture[:, :, 0], picture[:, :, 1])]


@pytest.fixture
def small_files():
    """No file may grow beyond 1000 bytes: the kernel refuses, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_tensorboard_reads_what_was_written(tmp_path, panels):
    sink = TensorBoardSink(tmp_path)
    for step in (1, 2, 3):
        sink.step(record(step))
    sink.validation(3, 1, {"mae": 0.25}, panels)
    sink.close()
    found = EventAccumulator(str(tmp_path)).Reload()
    losses = [(event.step, event.value) for event in found.Scalars("train/loss")]
    assert losses == [(step, pytest.approx(1 / step)) for step in (1, 2, 3)]
    assert [event.value for event in found.Scalars("validation/mae")] == [0.25]
    (shown,) = found.Images("panels")
    assert (shown.height, shown.width) == (160, 3 * 240 + 2 * 4)


@pytest.mark.parametrize("make", [TensorBoardSink, lambda path: JsonLinesSink(path / "log.jsonl")])
def test_a_full_disk_is_one_line(tmp_path, small_files, make, capfd):
    def write():
        sink = make(tmp_path)
        for step in range(1, 100):
            sink.step(record(step))

    with pytest.raises(UserError, match=r"cannot write .*(tfevents|log\.jsonl).*: File too large"):
        write()
    assert capfd.readouterr().err == ""


def test_panels_that_cannot_be_written_leave_nothing(tmp_path, small_files, panels):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    sink = PanelSink(tmp_path)
    with pytest.raises(UserError, match=r"cannot write .*epoch-0001\.png: File too large"):
        sink.validation(1, 1, {}, [panels[0]._replace(image=noise)])
    assert list(tmp_path.iterdir()) == []
