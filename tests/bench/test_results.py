"""Results files: back as they were written, and a clear line for any other file."""

import json
from pathlib import Path

import pytest

from lmwp_bench.results import Results, Row, Speedup, Timing, by_case, load, load_folder, save
from lmwp_models.errors import UserError


def results() -> Results:
    params = {"batch": 1, "device": "cpu"}
    ok = Row(
        *("ops", "double", "1000", params, "eager", "ok"),
        timing=Timing(1e-3, 2e-3, 3e-3, 9),
        speedup=Speedup(1, 1, 1),
        bytes=8_000_000,
        operations=1_000_000,
    )
    bad = Row("ops", "double", "1000", params, "ours", "wrong", reason="error 1", error=1.0)
    return Results({"cpu": "x"}, {"peak_rate": 1e9}, [ok, bad])


def test_a_round_trip_keeps_everything(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.json"
    save(results(), path)
    assert load(path) == results()
    assert load_folder(path.parent) == {"a": results()}
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_rates_follow_from_counts_and_the_median() -> None:
    row = results().rows[0]
    assert row.gbps == pytest.approx(4.0)
    assert row.gflops == pytest.approx(0.5)
    assert results().rows[1].gbps is None
    assert [len(rows) for rows in by_case(results().rows).values()] == [2]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "not JSON"),
        ('{"a": 1}', "schema lmwp-bench/1, got None"),
        ("[]", "got None"),
        (json.dumps({"schema": "lmwp-bench/1", "rows": [{}]}), "not a complete"),
    ],
)
def test_another_file_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(UserError, match=complaint) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_folders_without_results(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        load_folder(tmp_path / "none")
    with pytest.raises(UserError, match=r"no \.json in it"):
        load_folder(tmp_path)
