"""Configurations: which one a kernel gets, and how the fastest is found and kept."""

import json
import shutil
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import lmwp_ops
from lmwp_ops import _dispatch, _gpu, _tables, _tuning
from lmwp_ops._gpu import Gpu
from lmwp_ops._tuning import tuned

from . import fake_gpu
from .conftest import forget_this_process
from .fake_gpu import GPU, OP, call, install

CPU = torch.device("cpu")
CONFIGS = [{"block": 16}, {"block": 32}, {"block": 64}]
OTHER = [{"rows": 1}, {"rows": 2}]
NO_TABLE = {"format": 1, "measured": {}}


class Tunable:
    """An op's kernel in two launches, whose time is known for every configuration."""

    def __init__(self, key: str = "float32 12") -> None:
        self.key = key
        self.launched: list[tuple[int, int]] = []
        self.time = {(16, 1): 5.0, (32, 1): 3.0, (64, 1): 4.0, (32, 2): 2.0}

    def __call__(self, xs: list[torch.Tensor]) -> list[torch.Tensor]:
        block = tuned("third_fwd", self.key, CONFIGS, xs[0].device)["block"]
        rows = tuned("third_sum", self.key, OTHER, xs[0].device)["rows"]
        self.launched.append((block, rows))
        return fake_gpu.reference(xs)

    def time_of_last(self, run: Any) -> float:
        run()
        return self.time[self.launched[-1]]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Tunable:
    kernel = Tunable()
    monkeypatch.setattr(_tuning, "timer", kernel.time_of_last)
    install(triton=kernel)
    return kernel


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Writes tables as the package would hold them: tables(name, gpu, order, configs)."""
    folder = tmp_path / "tuned"
    folder.mkdir()
    monkeypatch.setattr(_tables, "FOLDER", folder)

    def write(name: str, gpu: dict[str, Any], **parts: Any) -> None:
        defaults = {"name": name, "multiprocessors": 100, "bandwidth": 1000}
        content = NO_TABLE | {"gpu": defaults | gpu} | parts
        (folder / f"{name}.json").write_text(json.dumps(content))
        forget_this_process(monkeypatch)

    return write


def times_out(run: object) -> float:
    raise AssertionError("timed in a call")


def test_a_call_takes_the_default_and_times_nothing(
    monkeypatch: pytest.MonkeyPatch, kernel: Tunable, cache: Path
) -> None:
    monkeypatch.setattr(_tuning, "timer", times_out)
    call()
    assert set(kernel.launched) == {(16, 1)}
    assert not (cache / "tuned").exists()


def test_off_a_gpu_it_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_gpu, "describe", lambda device: None)
    assert tuned("third_fwd", "key", CONFIGS, CPU) == CONFIGS[0]


@pytest.mark.parametrize("count", [0, 7])
def test_at_most_six_candidates(count: int) -> None:
    with pytest.raises(ValueError, match=f"third_fwd: candidates: expected 1 to 6, got {count}"):
        tuned("third_fwd", "key", [{"block": i} for i in range(count)], CPU)


def test_warmup_finds_the_fastest_and_calls_take_it(
    monkeypatch: pytest.MonkeyPatch, kernel: Tunable
) -> None:
    report = lmwp_ops.warmup([OP], [torch.float32], device="cpu")
    row = next(row for row in report.rows if row.backend == "triton")
    assert row.ms == 2.0
    assert row.configurations == {
        "third_fwd": {"float32 12": {"block": 32}},
        "third_sum": {"float32 12": {"rows": 2}},
    }
    monkeypatch.setattr(_tuning, "timer", times_out)
    kernel.launched.clear()
    call()
    forget_this_process(monkeypatch)
    call()
    assert set(kernel.launched) == {(32, 2)}
    kernel.launched.clear()
    kernel.key = "float32 4096"
    call()
    assert set(kernel.launched) == {(16, 1)}


def test_another_gpu_or_version_does_not_take_it(
    monkeypatch: pytest.MonkeyPatch, kernel: Tunable
) -> None:
    lmwp_ops.warmup([OP], [torch.float32], device="cpu")
    question = ("third_fwd", kernel.key, CONFIGS, CPU)
    assert tuned(*question) == {"block": 32}
    forget_this_process(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(_gpu, "describe", lambda device: Gpu("Fake 1001", (9, 0), 50))
        assert tuned(*question) == {"block": 16}
    forget_this_process(monkeypatch)
    assert tuned(*question) == {"block": 32}
    forget_this_process(monkeypatch)
    changed = _gpu.versions() | {"driver": "another"}
    monkeypatch.setattr(_gpu, "versions", lambda: changed)
    assert tuned(*question) == {"block": 16}


def test_a_cached_configuration_that_is_no_candidate_is_ignored(
    monkeypatch: pytest.MonkeyPatch, kernel: Tunable, cache: Path
) -> None:
    lmwp_ops.warmup([OP], [torch.float32], device="cpu")
    assert tuned("third_fwd", kernel.key, CONFIGS, CPU) == {"block": 32}
    forget_this_process(monkeypatch)
    assert tuned("third_fwd", kernel.key, CONFIGS[::2], CPU) == {"block": 16}


def test_configurations_that_fail_or_change_results_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def launch(xs: list[torch.Tensor]) -> list[torch.Tensor]:
        block = tuned("third_fwd", "key", CONFIGS, CPU)["block"]
        if block == 32:
            raise MemoryError("out of resource: shared memory")
        return [x / 3 + (block == 64) * 0.1 for x in xs]

    install(triton=launch)
    monkeypatch.setattr(_tuning, "timer", lambda run: run() and 1.0)
    with pytest.warns(UserWarning, match="third_fwd with {'block': 64}: result 0 is off by 0.1"):
        report = lmwp_ops.warmup([OP], [torch.float32], device="cpu")
    assert report.rows[0].configurations == {"third_fwd": {"key": {"block": 16}}}


def test_other_threads_keep_their_answers_while_one_tunes() -> None:
    answers = []
    with _tuning._answering({("third_fwd", "key"): CONFIGS[2]}) as asked:
        assert tuned("third_fwd", "key", CONFIGS, CPU) == CONFIGS[2]
        thread = threading.Thread(
            target=lambda: answers.append(tuned("third_fwd", "key", CONFIGS, CPU))
        )
        thread.start()
        thread.join()
    assert answers == [CONFIGS[0]]
    assert list(asked) == [("third_fwd", "key")]


def test_the_nearest_table_that_knows_the_kernel_counts(tables: Any) -> None:
    def entry(block: int) -> dict[str, Any]:
        return {"third_fwd": {"key": {"block": block}}}

    def answer() -> int:
        return tuned("third_fwd", "key", CONFIGS, CPU)["block"]

    tables("ampere", {"capability": "8.0"}, configs=entry(64))
    assert answer() == 64
    tables("far", {"capability": "9.0", "bandwidth": 4800}, configs=entry(32))
    assert answer() == 32
    tables("near", {"capability": "9.0", "bandwidth": 900}, configs=entry(64))
    assert answer() == 64
    tables("nearest", {"capability": "9.0"}, configs={"other": {"key": {"block": 1}}})
    assert answer() == 64
    tables("stale", {"capability": "9.0"}, configs=entry(17))
    assert answer() == 64


def test_nearness_is_capability_then_bandwidth_then_multiprocessors(tables: Any) -> None:
    gpus = {
        "same": {"capability": "9.0"},
        "fewer multiprocessors": {"capability": "9.0", "multiprocessors": 60},
        "slower memory": {"capability": "9.0", "bandwidth": 500},
        "other minor": {"capability": "9.1"},
        "other major": {"capability": "8.0"},
    }
    for name, gpu in reversed(gpus.items()):
        tables(name, gpu)
    assert [table.gpu.name for table in _tables.by_nearness(GPU)] == list(gpus)


def test_the_table_orders_the_backends(tables: Any) -> None:
    install(cuda=fake_gpu.right(), triton=fake_gpu.right())
    x = torch.ones(1, 1, 2, 2)
    assert lmwp_ops.explain(OP, [x]).backend == "cuda"
    tables("any", {"capability": "9.0"}, order={OP: {"float32": ["triton", "reference"]}})
    explanation = lmwp_ops.explain(OP, [x])
    assert explanation.backend == "triton"
    assert list(explanation.refusals) == ["reference", "cuda"]
    assert lmwp_ops.explain(OP, [x.half()]).backend == "cuda"
    call()
    assert _dispatch.op_named(OP).candidates["triton"].run.calls == 2
    assert _dispatch.op_named(OP).candidates["cuda"].run.calls == 0


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"format": 2}, "format: expected 1, got 2"),
        ({"gpu": None}, "gpu: expected dict, got None"),
        ({"gpu": {"capability": 9.0}}, "gpu.capability: expected str, got 9.0"),
        ({"gpu": {"capability": "nine"}}, "gpu.capability: expected such as '9.0', got 'nine'"),
        (
            {"gpu": {"capability": "9.0", "bandwidth": -1}},
            "gpu.bandwidth: expected GB/s or null, got -1",
        ),
        (
            {"gpu": {"capability": "9.0", "multiprocessors": 0}},
            "gpu.multiprocessors: expected at least 1, got 0",
        ),
        ({"measured": []}, "measured: expected dict, got []"),
        ({"order": {"a": {"half": ["gpu"]}}}, "order.a.half: expected some of cuda, triton"),
        ({"order": {"a": {"half": ["cuda", "cuda"]}}}, "order.a.half: expected some of"),
        ({"order": {"a": ["cuda"]}}, "order.a: expected dict, got ['cuda']"),
        ({"configs": {"a": {"key": {"block": "64"}}}}, "configs.a.key.block: expected int"),
        ({"configs": {"a": {"key": {"block": True}}}}, "configs.a.key.block: expected int"),
    ],
    ids=str,
)
def test_a_malformed_table_is_named_and_left_out(
    monkeypatch: pytest.MonkeyPatch, tables: Any, change: dict[str, Any], complaint: str
) -> None:
    tables("good", {"capability": "9.0"})
    good = json.loads((_tables.FOLDER / "good.json").read_text())
    (_tables.FOLDER / "bad.json").write_text(json.dumps(good | change))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            assert [table.gpu.name for table in _tables.by_nearness(GPU)] == ["good"]
    (warning,) = caught
    assert f"bad.json is left out: {complaint}" in str(warning.message)
    assert "\n" not in str(warning.message)


def test_a_torn_table_is_left_out(tables: Any) -> None:
    tables("good", {"capability": "9.0"})
    (_tables.FOLDER / "bad.json").write_text('{"format": 1')
    with pytest.warns(UserWarning, match=r"bad\.json is left out: .*line 1"):
        assert len(_tables.by_nearness(GPU)) == 1


def test_what_warmup_measured_is_a_table(
    monkeypatch: pytest.MonkeyPatch, tables: Any, kernel: Tunable, tmp_path: Path
) -> None:
    install(triton=kernel, cuda=fake_gpu.wrong())
    of_kernel = kernel.time_of_last
    monkeypatch.setattr(_tuning, "timer", lambda run: of_kernel(run) if run.func is kernel else 1.5)
    shapes = {OP: [[(1, 1, 2, 2)], [(1, 1, 4, 4)]]}
    with pytest.warns(RuntimeWarning):
        report = lmwp_ops.warmup([OP], [torch.float32], device="cpu", shapes=shapes)
    content = report.table()
    assert content["order"] == {OP: {"float32": ["reference", "triton"]}}
    assert content["measured"]["torch"] == torch.__version__
    text = json.dumps(content)
    assert _tables.parse(text).gpu == GPU
    (_tables.FOLDER / "fake.json").write_text(text)
    shutil.rmtree(tmp_path / "kernels")
    forget_this_process(monkeypatch)
    assert lmwp_ops.explain(OP, [torch.ones(1, 1, 2, 2)]).backend == "reference"
    assert tuned("third_fwd", kernel.key, CONFIGS, CPU) == {"block": 32}


def test_the_tables_of_the_package_are_whole() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _tables.load_all()


def test_the_format_is_described_by_an_example_that_is_read(tables: Any) -> None:
    text = (Path(_tables.__file__).parent / "tuned" / "README.md").read_text()
    example = text.split("```json\n")[1].split("```")[0]
    table = _tables.parse(example)
    assert table.order
    assert table.configs
