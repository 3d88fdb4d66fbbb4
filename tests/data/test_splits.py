"""The held-out part of a data set."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmwp_models.data import holdout

NAMES = [f"picture-{i}" for i in range(1000)]


def test_it_is_a_partition_of_about_the_fraction() -> None:
    training, validation = holdout(NAMES, 0.1)
    assert sorted(training + validation) == list(range(1000))
    assert 70 < len(validation) < 130
    assert training == sorted(training)
    assert validation == sorted(validation)


def test_it_is_known() -> None:
    """A change of the rule would leak old validation pictures into resumed training."""
    assert holdout([f"n{i}" for i in range(20)], 4, seed=1)[1] == [0, 1, 6, 7]


@pytest.mark.parametrize("count", [1, 50, 999])
def test_counts_are_exact(count: int) -> None:
    assert len(holdout(NAMES, count)[1]) == count


def test_nothing_held_out() -> None:
    assert holdout(NAMES, 0) == (list(range(1000)), [])
    assert holdout(["only"], 0) == ([0], [])


def test_seeds_differ() -> None:
    assert holdout(NAMES, 0.1, seed=0) != holdout(NAMES, 0.1, seed=1)


@given(st.lists(st.text(max_size=5), min_size=1, unique=True), st.integers(0, 99))
def test_adding_names_moves_no_other(added: list[str], position: int) -> None:
    before = {NAMES[i] for i in holdout(NAMES, 0.1)[1]}
    names = [*NAMES[:position], *(f"+{name}" for name in added), *NAMES[position:]]
    after = {names[i] for i in holdout(names, 0.1)[1]}
    assert {name for name in after if not name.startswith("+")} == before


@pytest.mark.parametrize("amount", [0.3, 300])
def test_equal_contents_stay_on_one_side(amount: float) -> None:
    contents = [str(i // 2) for i in range(1000)]
    _, validation = holdout(NAMES, amount, contents=contents)
    held = set(validation)
    assert all((i in held) == (i + 1 in held) for i in range(0, 1000, 2))
    assert len(held) == pytest.approx(300, abs=45)


def test_the_order_of_equal_contents_does_not_matter() -> None:
    contents = [str(i // 5) for i in range(1000)]
    held = {NAMES[i] for i in holdout(NAMES, 0.3, contents=contents)[1]}
    backwards = NAMES[::-1]
    again = {backwards[i] for i in holdout(backwards, 0.3, contents=contents[::-1])[1]}
    assert held == again


def test_small_sets_hold_out_at_least_one() -> None:
    for seed in range(20):
        assert len(holdout(["a", "b", "c"], 0.01, seed)[1]) == 1


@pytest.mark.parametrize("amount", [-0.1, 3, 7, 1.5])
def test_wrong_amounts(amount: float) -> None:
    with pytest.raises(ValueError, match="below 3 samples"):
        holdout(["a", "b", "c"], amount)
