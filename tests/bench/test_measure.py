"""A case: nothing wrong is ever timed, and every refusal becomes a line."""

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from lmwp_bench import accuracy
from lmwp_bench.measure import Case, CaseRun
from lmwp_bench.results import Row
from lmwp_bench.variant import Unavailable

MakeCase = Callable[..., Case]
Doubled = Callable[[float], Any]


def rows_of(case: Case) -> dict[str, Row]:
    return {row.variant: row for row in CaseRun(case).measure(0.01)}


def missing() -> Any:
    raise Unavailable("fastlib is not installed; pip install fastlib")


def crashing() -> Any:
    raise RuntimeError("first line\nsecond line")


def test_a_wrong_variant_has_no_time(make_case: MakeCase, doubled: Doubled) -> None:
    rows = rows_of(make_case({"eager": doubled(0), "ours": doubled(1e-2), "near": doubled(5e-7)}))
    assert rows["ours"].status == "wrong"
    assert rows["ours"].timing is None
    assert rows["ours"].speedup is None
    assert "allowed" in (rows["ours"].reason or "")
    assert rows["ours"].error == pytest.approx(1e-2, rel=1e-3)
    assert rows["near"].status == "ok"
    assert rows["near"].timing is not None


@pytest.mark.parametrize(
    "outputs",
    [
        [torch.full((1000,), float("nan"))],
        [torch.zeros(999)],
        [torch.zeros(1000), torch.zeros(1000)],
        [],
    ],
    ids=["nan", "shape", "too many", "none"],
)
def test_outputs_that_cannot_be_right(
    make_case: MakeCase, doubled: Doubled, outputs: list[torch.Tensor]
) -> None:
    rows = rows_of(make_case({"eager": doubled(0), "ours": lambda: lambda i: outputs}))
    assert rows["ours"].status == "wrong"
    assert rows["ours"].error is None


def test_a_wrong_baseline_judges_nobody(make_case: MakeCase, doubled: Doubled) -> None:
    rows = rows_of(make_case({"eager": doubled(0.5), "ours": doubled(0), "off": doubled(0.5)}))
    assert [rows[name].status for name in ("eager", "ours", "off")] == ["wrong", "ok", "wrong"]
    assert rows["ours"].speedup is None


def test_missing_and_crashing_variants_are_lines(make_case: MakeCase, doubled: Doubled) -> None:
    rows = rows_of(make_case({"gone": missing, "eager": doubled(0), "bad": crashing}))
    assert list(rows) == ["gone", "eager", "bad"]
    assert rows["gone"].status == "unavailable"
    assert rows["gone"].reason == "fastlib is not installed; pip install fastlib"
    assert rows["bad"].status == "failed"
    assert rows["bad"].reason == "RuntimeError: first line"
    assert rows["bad"].params == rows["eager"].params


def test_hot_and_cold_are_kept_apart(make_case: MakeCase) -> None:
    asked: list[int] = []
    x = torch.linspace(1, 2, 1000)

    def compute(i: int) -> list[torch.Tensor]:
        asked.append(i)
        return [2 * x]

    rows = CaseRun(make_case({"eager": lambda: compute}, sets=3)).measure(0.01)
    assert [row.params["cache"] for row in rows] == ["hot", "cold"]
    assert set(asked) == {0, 1, 2}


def test_times_and_ratios_are_those_of_the_variants(make_case: MakeCase) -> None:
    x = torch.linspace(1, 2, 1000)

    def taking(seconds: float) -> Any:
        def compute(i: int) -> list[torch.Tensor]:
            time.sleep(seconds)
            return [2 * x]

        return lambda: compute

    rows = rows_of(make_case({"eager": taking(0.004), "ours": taking(0.001)}))
    timing, ratio = rows["ours"].timing, rows["ours"].speedup
    assert timing is not None
    assert ratio is not None
    assert 0.001 <= timing.p50 < 0.002
    assert 2.5 < ratio.p50 < 4.1


def test_memory_is_that_of_a_call(make_case: MakeCase) -> None:
    x = torch.linspace(1, 2, 1000)

    def hungry(i: int) -> list[torch.Tensor]:
        torch.ones(64 << 18).sum()  # 64 MiB
        return [2 * x]

    rows = rows_of(make_case({"eager": lambda: lambda i: [2 * x], "ours": lambda: hungry}))
    peaks = rows["eager"].peak_memory, rows["ours"].peak_memory
    if None in peaks:
        pytest.skip("this system does not tell the height of resident memory")
    assert peaks[0] < 8 << 20 < 60 << 20 < peaks[1] < 72 << 20
    assert (rows["eager"].launches, rows["ours"].launches) == (1, 3)


def test_the_error_is_relative_to_the_largest_output() -> None:
    true = [torch.tensor([100.0, 1.0], dtype=torch.float64)]
    assert accuracy.error([torch.tensor([100.0, 2.0])], true) == pytest.approx(0.01)
    assert accuracy.error([torch.tensor([float("nan"), 1.0])], true) == float("inf")
    assert accuracy.error([torch.zeros(0)], [torch.zeros(0).double()]) == 0.0
