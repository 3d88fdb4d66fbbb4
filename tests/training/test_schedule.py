"""Learning rates at the points that define them."""

import pytest

from lmwp_models.training.recipe import ScheduleSection
from lmwp_models.training.schedule import learning_rate


def rates(schedule, steps=100, per_epoch=10):
    return [learning_rate(schedule, 1.0, s, per_epoch, steps) for s in range(steps)]


def test_constant():
    assert set(rates(ScheduleSection(kind="constant"))) == {1.0}


def test_step_drops_at_the_first_step_of_each_milestone_epoch():
    got = rates(ScheduleSection(kind="step", milestones=(3, 7), gamma=0.1))
    assert got[:30] == [1.0] * 30
    assert got[30:70] == pytest.approx([0.1] * 40)
    assert got[70:] == pytest.approx([0.01] * 30)


def test_one_cycle_rises_to_the_peak_and_falls_to_nothing():
    got = rates(ScheduleSection(kind="one_cycle", warmup=0.25), steps=101)
    assert got[0] == pytest.approx(1 / 25)
    assert got.index(max(got)) == 25
    assert max(got) == pytest.approx(1.0)
    assert got[-1] == pytest.approx(1e-4)
    assert got[:26] == sorted(got[:26])
    assert got[25:] == sorted(got[25:], reverse=True)


def test_cosine_falls_to_its_share_of_the_peak():
    got = rates(ScheduleSection(kind="cosine", final=0.1), steps=101)
    assert got[0] == 1.0
    assert got[50] == pytest.approx(0.55)
    assert got[-1] == pytest.approx(0.1)
    assert got == sorted(got, reverse=True)


@pytest.mark.parametrize("kind", ["cosine", "step", "constant"])
def test_others_rise_in_a_line(kind):
    got = rates(ScheduleSection(kind=kind, warmup=0.2, milestones=(5,)), steps=101)
    assert got[:20] == pytest.approx([(step + 1) / 21 for step in range(20)])
    assert got[20] == 1.0
    assert max(got[21:]) <= 1.0


@pytest.mark.parametrize("kind", ["one_cycle", "cosine", "step", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 1.0])
@pytest.mark.parametrize("steps", [1, 2])
def test_a_very_short_run(kind, warmup, steps):
    got = rates(ScheduleSection(kind=kind, warmup=warmup), steps=steps, per_epoch=1)
    assert all(0 <= rate <= 1 for rate in got)
    assert got[0] > 0
