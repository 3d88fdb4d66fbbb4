"""SparseConvWeight: packing, files, what is refused, and which format `auto` takes."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lmwp_ops import SparseConvWeight, _loader
from lmwp_ops.ops.sparse_conv2d import packing, speed
from lmwp_ops.ops.sparse_conv2d.choice import fastest, regular
from lmwp_ops.ops.sparse_conv2d.speed import EPYC, XEON, Processor, break_even, predicted_gain

from .cases import CASES, Case, draw_mask

PACKERS = [packing]
if _loader.why_not("_host") is None:
    from lmwp_ops import _host

    PACKERS.append(_host)
each_processor = pytest.mark.parametrize("processor", [XEON, EPYC], ids=["xeon", "epyc"])
each_packer = pytest.mark.parametrize("packer", PACKERS, ids=["numpy", "compiled"][: len(PACKERS)])


@st.composite
def masks(draw: st.DrawFn, kernel: bool = True) -> Tensor:
    """Random masks, with whole rows and columns pruned or kept."""
    sizes = st.integers(1, 70), st.integers(1, 140), st.sampled_from([1, 3] if kernel else [1])
    out, into, k = (draw(size) for size in sizes)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))

    def kept(density: float, *shape: int) -> Tensor:
        return torch.rand(shape, generator=generator) < density

    densities = st.sampled_from([0.0, 0.1, 0.5, 1.0])
    mask = kept(draw(densities), out, into, k, k)
    mask &= kept(draw(st.sampled_from([0.5, 1.0])), out, 1, 1, 1)
    mask &= kept(draw(st.sampled_from([0.5, 1.0])), 1, into, 1, 1)
    return mask | ~kept(draw(st.sampled_from([0.9, 1.0])), out, 1, 1, 1)


def check_packed(dense: Tensor, mask: Tensor, weight: SparseConvWeight) -> None:
    weight.check()
    pruned = torch.where(mask, dense, 0)
    assert torch.equal(weight.to_dense(), pruned)
    assert weight.values.is_contiguous()
    if weight.format != "block":
        assert weight.density == pytest.approx(float(mask.float().mean()))


@given(masks(), st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64]))
@settings(max_examples=60, deadline=None)
def test_any_mask_comes_back_exactly(mask: Tensor, dtype: torch.dtype) -> None:
    dense = torch.randn(mask.shape).to(dtype)
    one_by_one = "unstructured" if mask.shape[2] == 1 else "taps"
    for format in ("auto", "dense", "taps", one_by_one):
        check_packed(dense, mask, SparseConvWeight.from_dense(dense, mask, format))


HALF = Case((1, 12, 3, 3), 5, "2:4")


@pytest.mark.parametrize("case", [*CASES, HALF], ids=str)
def test_every_format_comes_back_exactly(case: Case) -> None:
    mask = draw_mask(case)
    dense = torch.randn(mask.shape)
    weight = SparseConvWeight.from_dense(
        dense, mask.float(), case.format, block=case.block, groups=case.groups
    )
    check_packed(dense, mask, weight)
    assert (weight.format, weight.shape, weight.groups) == (case.format, mask.shape, case.groups)


@pytest.mark.skipif(len(PACKERS) < 2, reason="the compiled packer is not loaded")
@given(masks(kernel=False), st.sampled_from([(1, 1, 64), (1, 1, 4), (4, 1, 8), (3, 2, 64)]))
@settings(max_examples=60, deadline=None)
def test_packers_agree(mask: Tensor, block: tuple[int, int, int]) -> None:
    rows, columns, slab = block
    whole = mask[:, :, 0, 0].repeat_interleave(rows, 0).repeat_interleave(columns, 1)
    matrix = whole.numpy()[: len(whole) - (len(whole) > rows)]
    found = [packer.pack_blocks(np.ascontiguousarray(matrix), *block) for packer in PACKERS]
    for a, b in zip(*found, strict=True):
        assert a.dtype == b.dtype == np.int32
        assert np.array_equal(a, b)
    for packer in PACKERS:
        block_rows, block_columns = -(-len(matrix) // rows), matrix.shape[1] // columns
        packer.check_blocks(*found[0], block_rows, block_columns, slab // columns)


def int32(*values: int) -> np.ndarray[Any, np.dtype[np.int32]]:
    return np.array(values, np.int32)


# offsets, columns, rows of blocks, columns of blocks, slab
BAD_BLOCKS: dict[str, tuple[Any, ...]] = {
    "too few offsets": (int32(0, 2), int32(0, 1), 2, 2, 2),
    "too many offsets": (int32(0, 1, 2, 2), int32(0, 1), 2, 2, 2),
    "not from zero": (int32(1, 1, 2), int32(0, 1), 2, 2, 2),
    "beyond the columns": (int32(0, 1, 3), int32(0, 1), 2, 2, 2),
    "short of the columns": (int32(0, 1, 1), int32(0, 1), 2, 2, 2),
    "falling": (int32(0, 2, 1, 2), int32(0, 1), 3, 2, 2),
    "far off": (int32(0, 2**31 - 1, 2), int32(0, 1), 2, 2, 2),
    "negative offset": (int32(0, -5, 2), int32(0, 1), 2, 2, 2),
    "column out of range": (int32(0, 1, 2), int32(0, 2), 2, 2, 2),
    "negative column": (int32(0, 1, 2), int32(0, -1), 2, 2, 2),
    "column twice": (int32(0, 2, 2), int32(1, 1), 2, 2, 2),
    "columns fall": (int32(0, 2, 2), int32(1, 0), 2, 2, 2),
    "another slab": (int32(0, 1, 2), int32(0, 0), 1, 4, 2),
    "no rows": (int32(0), int32(), 0, 4, 2),
}


@each_packer
@pytest.mark.parametrize("name", BAD_BLOCKS)
def test_wrong_blocks_are_refused(packer: ModuleType, name: str) -> None:
    with pytest.raises(ValueError, match=r"offsets|index|rows"):
        packer.check_blocks(*BAD_BLOCKS[name])


@each_packer
def test_indices_rise_below_their_end(packer: ModuleType) -> None:
    packer.check_rising(int32(0, 3, 4), 5)
    packer.check_rising(int32(), 0)
    for wrong in (int32(0, 3, 5), int32(-1, 3), int32(3, 3), int32(3, 2)):
        with pytest.raises(ValueError, match="out of order or out of range"):
            packer.check_rising(wrong, 5)


@each_packer
def test_what_cannot_be_packed_is_refused(packer: ModuleType) -> None:
    mask = np.ones((4, 6), bool)
    mask[1, 2] = False
    for settings_, message in (
        ((2, 2, 6), r"block at \(0, 2\) is kept in part"),
        ((2, 4, 8), "do not divide 6 columns"),
        ((0, 1, 6), "do not divide"),
        ((1, 2, 3), "do not divide the slabs"),
    ):
        with pytest.raises(ValueError, match=message):
            packer.pack_blocks(mask, *settings_)


PARTLY = torch.ones(8, 16, 1, 1)
PARTLY[1, 2] = 0
W = torch.randn(8, 16, 1, 1)
K = torch.ones(8, 4, 2, 2)
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "3-D": ({"weight": W[0]}, r"weight: expected a floating-point \[O, I, kh, kw\], got \[16, 1"),
    "ints": ({"weight": W.int()}, r"weight: .* got \[8, 16, 1, 1\] torch.int32"),
    "mask": ({"mask": PARTLY[:4]}, r"mask: expected the shape \[8, 16, 1, 1\] of the weight, got"),
    "format": ({"format": "csr"}, r"format: expected one of auto, dense, .*, got 'csr'"),
    "groups": ({"groups": 3}, r"groups: expected a divisor of the 8 output channels, got 3"),
    "channels": ({"format": "channels"}, r"mask: .* channels .*, got channels that are kept in p"),
    "grouped": ({"format": "channels", "groups": 2}, r"mask: .* channels .*, got 2 groups"),
    "part": ({"format": "block", "block": (4, 1)}, r"mask: .* block 4 x 1, got the block at \(0, "),
    "divide": ({"format": "block", "block": (1, 3)}, r"mask: .* block 1 x 3, got blocks of 1 x 3"),
    "block": ({"format": "taps", "block": (4, 1)}, r"block: expected None unless format is 'block"),
    "some": ({"format": "2:4"}, r"mask: .* 2:4 .*, got a mask that does not keep two of"),
    "halves": ({"format": "2:4", "weight": K, "mask": K}, r"mask: .*, got two of every four"),
    "group": ({"format": "2:4", "groups": 2}, r"mask: .*, got two of every four .* in 2 groups"),
    "kernel": ({"format": "unstructured", "weight": K, "mask": K}, r"mask: .*, got a kernel of 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_errors_name_argument_expected_and_got(name: str) -> None:
    changes, message = BAD[name]
    with pytest.raises(ValueError, match=r"^SparseConvWeight: " + message):
        SparseConvWeight.from_dense(**{"weight": W, "mask": PARTLY, **changes})


@pytest.mark.parametrize("case", [CASES[0], CASES[9], CASES[16], CASES[22], HALF], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_files_keep_everything(case: Case, dtype: torch.dtype, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    mask = draw_mask(case)
    dense = torch.randn(mask.shape).to(dtype)
    saved = SparseConvWeight.from_dense(
        dense, mask, case.format, block=case.block, groups=case.groups
    )
    saved.save(tmp_path / "weight.safetensors")
    loaded = SparseConvWeight.load(tmp_path / "weight.safetensors")
    assert torch.equal(loaded.to_dense(), saved.to_dense())
    for name in ("format", "shape", "block", "groups"):
        assert getattr(loaded, name) == getattr(saved, name)


KEY = "lmwp_ops.SparseConvWeight"
SETTINGS = {"format": "taps", "shape": [2, 2, 1, 1], "block": [1, 1], "groups": 1}
TENSORS = {
    "values": torch.ones(2, 1, 1),
    "offsets": torch.tensor([0, 1, 2], dtype=torch.int32),
    "columns": torch.tensor([0, 1], dtype=torch.int32),
}
CORRUPT: dict[str, tuple[dict[str, Any], dict[str, Tensor]]] = {
    "format": ({"format": "csr"}, {}),
    "no format": ({"format": None}, {}),
    "list": ({"format": []}, {}),
    "shape": ({"shape": [2, 2, 1]}, {}),
    "zero": ({"shape": [2, 0, 1, 1]}, {}),
    "text": ({"shape": "2211"}, {}),
    "number": ({"shape": 4}, {}),
    "float": ({"groups": 1.0}, {}),
    "groups": ({"groups": 3}, {}),
    "no groups": ({"groups": 0}, {}),
    "block": ({"block": [0, 1]}, {}),
    "other block": ({"block": [1, 2]}, {}),
    "values": ({}, {"values": torch.ones(3, 1, 1)}),
    "flat values": ({}, {"values": torch.ones(2)}),
    "long": ({}, {"offsets": torch.tensor([0, 1, 2])}),
    "offsets": ({}, {"offsets": torch.tensor([0, 3, 2], dtype=torch.int32)}),
    "columns": ({}, {"columns": torch.tensor([0, 2], dtype=torch.int32)}),
    "another": ({}, {"more": torch.ones(1)}),
    "channels": ({"format": "channels"}, {}),
    "2:4 of two": ({"format": "2:4"}, {}),
}


@pytest.mark.parametrize("name", CORRUPT)
def test_corrupt_files_are_errors(name: str, tmp_path: Path) -> None:
    files = pytest.importorskip("safetensors.torch")
    settings_, tensors = CORRUPT[name]
    path = tmp_path / "weight.safetensors"
    files.save_file(TENSORS | tensors, path, {KEY: json.dumps(SETTINGS | settings_)})
    with pytest.raises(ValueError, match=r"weight.safetensors: does not hold a SparseConvWeight"):
        SparseConvWeight.load(path)


def test_other_files_are_errors(tmp_path: Path) -> None:
    files = pytest.importorskip("safetensors.torch")
    path = tmp_path / "weight.safetensors"
    for metadata in ({}, {KEY: "{"}, {KEY: "[]"}, {KEY: "{}"}):
        files.save_file(TENSORS, path, metadata)
        with pytest.raises(ValueError, match="does not hold a SparseConvWeight"):
            SparseConvWeight.load(path)
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(ValueError, match="does not hold a SparseConvWeight"):
        SparseConvWeight.load(path)
    with pytest.raises(OSError, match="nothing"):
        SparseConvWeight.load(tmp_path / "nothing.safetensors")


def test_check_is_for_weights_put_together_by_hand() -> None:
    weight = SparseConvWeight.from_dense(W, PARTLY, "unstructured")
    assert weight.check() is weight
    offsets, columns = weight.indices
    for wrong in (
        replace(weight, indices=(offsets, columns + 1)),
        replace(weight, indices=(offsets,)),
        replace(weight, values=weight.values[:-1]),
        replace(weight, format="csr"),
    ):
        with pytest.raises(ValueError, match=r"^SparseConvWeight: "):
            wrong.check()


def test_auto_looks_for_the_most_regular_format() -> None:
    square = torch.eye(2).repeat_interleave(16, 0).repeat_interleave(16, 1)[:, :, None, None]
    tall = torch.eye(5).repeat_interleave(16, 0)[:, :, None, None]
    low = torch.eye(5).repeat_interleave(4, 0)[:, :, None, None]
    channels = torch.ones(8, 6, 1, 1)
    channels[3], channels[:, 2] = 0, 0
    for mask, expected in (
        (channels, ("channels", (1, 1))),
        (square, ("block", (16, 16))),
        (tall, ("block", (16, 1))),
        (low, ("block", (4, 1))),
        (torch.eye(8)[:, :, None, None], ("unstructured", (1, 1))),
        (torch.eye(8).view(8, 8, 1, 1).expand(8, 8, 3, 3).tril(), ("taps", (1, 1))),
    ):
        choice = regular(mask.bool().numpy(), 1)
        assert (choice.format, choice.block) == expected


@pytest.mark.skipif(_loader.why_not("_C") is not None, reason="the kernels are not loaded")
@each_processor
def test_auto_is_dense_where_that_is_faster(
    processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More kept and smaller maps are for dense."""
    monkeypatch.setattr(speed, "processor", lambda: processor)
    dense = torch.randn(128, 128, 1, 1)
    found = {}
    for density in (0.05, 0.3, 0.9):
        mask = torch.rand(dense.shape) < density
        for side in (2, 56):
            weight = SparseConvWeight.from_dense(dense, mask, size=(side, side))
            found[density, side] = weight.format
            assert "break-even is at" in weight.reason
            assert ("dense is faster here" in weight.reason) == (weight.format == "dense")
    assert found[0.05, 56] == "unstructured"
    assert found[0.05, 2] == found[0.9, 56] == "dense"


@each_processor
@pytest.mark.parametrize("format", ["unstructured", "block", "taps", "channels"])
@pytest.mark.parametrize(("shape", "groups"), [((64, 64, 1, 1), 1), ((40, 40, 3, 3), 1)])
def test_break_even_is_where_the_gain_is_one(
    format: str,
    shape: tuple[int, int, int, int],
    groups: int,
    processor: Processor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(speed, "processor", lambda: processor)
    size = (56, 56)
    limit = break_even(format, shape, groups, size)
    assert 0 < limit <= 1
    gain = predicted_gain(format, limit, shape, groups, size)
    assert gain == pytest.approx(1, rel=1e-3) or (gain > 1 and limit == pytest.approx(1))
    assert predicted_gain(format, limit / 2, shape, groups, size) > 1
    assert break_even(format, shape, groups, (1, 1)) == pytest.approx(0, abs=1e-5)


@pytest.mark.skipif(_loader.why_not("_host") is not None, reason="no compiled host module")
@pytest.mark.parametrize(
    ("vendor", "instruction_set", "expected"),
    [("intel", "avx512", XEON), ("intel", "avx2", EPYC), ("amd", "avx512", EPYC)],
)
def test_predictions_are_of_the_processor_most_alike(
    vendor: str, instruction_set: str, expected: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _host.cpu_vendor() in ("amd", "intel", "another")
    monkeypatch.setattr(_host, "cpu_vendor", lambda: vendor)
    monkeypatch.setattr(_host, "cpu_capability", lambda: instruction_set)
    assert speed.processor.__wrapped__() == expected


def test_nothing_was_measured_on_other_devices() -> None:
    choice = fastest(np.eye(64, dtype=bool)[:, :, None, None], 1, (56, 56), "cuda")
    assert choice.format == "dense"
    assert "nothing was measured on cuda" in choice.reason


def test_files_say_which_package_they_need(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    weight = SparseConvWeight.from_dense(W, PARTLY, "taps")
    needs = r"SparseConvWeight: files need the package safetensors, of the extra lmwp-ops\[train\]"
    with pytest.raises(ImportError, match=needs):
        weight.save(tmp_path / "weight.safetensors")
