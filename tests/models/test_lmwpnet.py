"""LMWP-Net, reconstructed: its budget, sizes, gates, decay and files."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

import lmwp_models
from lmwp_models.complexity import summarize
from lmwp_models.errors import UserError
from lmwp_models.lmwpnet import LMWPNet, PruningShares
from lmwp_models.lmwpnet_config import LMWPNetConfig
from lmwp_models.mafm import MAFM
from lmwp_models.mwpm import MWPM, PruningGate
from lmwp_models.registry import create_model, model_info
from lmwp_models.semantic_context import SemanticContext
from lmwp_models.training.decay import DynamicWeightDecay

from .lmwpnet_cases import SMALL, small

# Of the description's table: parameters exact, MACs rounded as there.
PARTS = {
    "stage1": (480 + 4_032, "59.9"),
    "stage2": (784 + 12_672, "42.9"),
    "stage3": (2_592 + 2 * 43_776, "71.4"),
    "stage4": (9_280 + 3 * 161_280, "98.0"),
    "stage5": (43_328 + 2 * 956_160, "108.5"),
    "context": (309_120, "26.1"),
    "mafm16": (102_487, "15.7"),
    "mafm8": (39_567, "19.8"),
    "mafm4": (16_039, "23.4"),
    "mafm2": (6_951, "31.1"),
    "heads": (541, "0.9"),
}


class TestBudget:
    @pytest.fixture
    def model(self) -> LMWPNet:
        with torch.device("meta"):
            return create_model("lmwpnet")

    def test_whole(self, model: LMWPNet) -> None:
        cost = summarize(model, (336, 336))
        assert (cost.params, cost.macs) == (3_031_585, 497_664_142)
        assert model.training

    def test_evaluation_leaves_the_side_outputs_out(self, model: LMWPNet) -> None:
        sides = 32 * 84**2 + 64 * 42**2 + 104 * 21**2 + 320 * 11**2
        macs = summarize(copy.deepcopy(model).eval(), (336, 336)).macs
        assert macs == 497_664_142 - sides

    def test_parts(self, model: LMWPNet) -> None:
        parts = summarize(model, (336, 336)).by_part
        got = {name: (c.params, f"{c.macs / 1e6:.1f}") for name, c in parts.items()}
        assert got == PARTS

    # Entry and one MWPM of a stage, and the size of its output for 336 pixels.
    @pytest.mark.parametrize(
        ("stage", "entry", "mwpm", "macs", "size"),
        [
            (0, 480, 4_032, "47.7", 168),
            (1, 784, 12_672, "38.3", 84),
            (2, 2_592, 43_776, "33.6", 42),
            (3, 9_280, 161_280, "31.4", 21),
            (4, 43_328, 956_160, "51.7", 11),
        ],
    )
    def test_stages(
        self, model: LMWPNet, stage: int, entry: int, mwpm: int, macs: str, size: int
    ) -> None:
        blocks = list(model.stages[stage])
        counts = [sum(p.numel() for p in block.parameters()) for block in blocks]
        assert counts == [entry] + [mwpm] * (len(blocks) - 1)
        width = model.config.widths[stage]
        got = summarize(_OnFeature(blocks[1], (width, size, size)), (1, 1)).macs
        assert f"{got / 1e6:.1f}" == macs


class _OnFeature(nn.Module):
    """Feeds a block a feature in place of an image."""

    def __init__(self, block: nn.Module, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.block, self.shape = block, shape

    def forward(self, images: Tensor) -> Tensor:
        return self.block(images.new_zeros(len(images), *self.shape))


@pytest.mark.parametrize("size", [(32, 32), (33, 57), (63, 32), (97, 75)], ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_sizes_it_takes(size: tuple[int, int], training: bool) -> None:
    outputs = small().train(training)(torch.randn(2, 3, *size))
    maps = outputs if training else [outputs]
    assert [tuple(y.shape) for y in maps] == [(2, 1, *size)] * (5 if training else 1)
    assert all(y.isfinite().all() for y in maps)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 3, 31, 64), r"height and width of at least 32, got 31 x 64; pad or resize"),
        ((2, 3, 64, 0), r"height and width of at least 32, got 64 x 0"),
        ((2, 1, 64, 64), r"expected images \[N, 3, H, W\], got shape \[2, 1, 64, 64\]"),
        ((3, 64, 64), r"expected images \[N, 3, H, W\], got shape \[3, 64, 64\]"),
        ((1, 3, 64, 64), r"at least two images per process in training .*, got 1; use eval\(\)"),
    ],
)
def test_what_it_refuses(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small()(torch.zeros(shape))


def test_one_image_or_none_in_evaluation() -> None:
    model = small().eval()
    assert model(torch.zeros(1, 3, 32, 40)).shape == (1, 1, 32, 40)
    assert model(torch.zeros(0, 3, 32, 40)).shape == (0, 1, 32, 40)


def test_every_parameter_has_a_gradient() -> None:
    model = create_model("lmwpnet")
    sum(y.square().mean() for y in model(torch.randn(8, 3, 64, 64))).backward()
    without = [
        name
        for name, p in model.named_parameters()
        if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()
    ]
    assert without == []


def test_autocast_keeps_the_gate_in_float32() -> None:
    model = small().eval()
    x = torch.randn(2, 3, 48, 48)
    seen = []
    for module in model.modules():
        if isinstance(module, PruningGate):
            module.register_forward_hook(lambda _, args, w: seen.append(w.dtype))
    with torch.no_grad():
        exact = model(x)
        seen.clear()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = model(x)
    assert set(seen) == {torch.float32}
    assert (got.float() - exact).abs().max() < 0.1 * exact.abs().max()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model.train()(x)
    sum(y.float().square().mean() for y in outputs).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_channels_last_computes_the_same() -> None:
    model, x = small().eval(), torch.randn(2, 3, 40, 56)
    with torch.no_grad():
        expected = model(x)
        got = model.to(memory_format=torch.channels_last)(
            x.contiguous(memory_format=torch.channels_last)
        )
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


def test_compiled_training_step_is_one_graph() -> None:
    torch._dynamo.reset()
    model = create_model("lmwpnet", **SMALL)
    twin, x = copy.deepcopy(model), torch.randn(4, 3, 48, 40)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    steps = []
    for function, owner in ((compiled, model), (twin, twin)):
        loss = sum(y.square().mean() for y in function(x))
        steps.append(torch.autograd.grad(loss, list(owner.parameters())))
    torch.testing.assert_close(*steps, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(model.state_dict(), twin.state_dict())


class TestGate:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
    @pytest.mark.parametrize("t", [-8.0, 0.0, 4.0, 8.0, 100.0])
    @pytest.mark.parametrize("branches", [1, 3, 4, 7])
    def test_equal_logits_keep_every_branch(
        self, t: float, dtype: torch.dtype, branches: int
    ) -> None:
        gate = PruningGate(6, branches, 4)
        nn.init.zeros_(gate.fc2.weight)
        nn.init.zeros_(gate.fc2.bias)
        nn.init.constant_(gate.threshold, t)
        weights = gate.to(dtype)(torch.randn(3, 6, 4, 4).to(dtype))
        assert weights.dtype == torch.float32
        torch.testing.assert_close(weights, torch.full_like(weights, 1 / branches))

    def test_prunes_what_is_below_the_threshold(self) -> None:
        gate = PruningGate(1, 4, 4).double()
        nn.init.zeros_(gate.fc2.weight)
        shares = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
        gate.fc2.bias.data = shares.log()
        gate.threshold.data.fill_(math.log(0.8 / 0.2))  # tau = 0.8 / 4
        weights = gate(torch.randn(2, 1, 3, 3, dtype=torch.float64))[0, :, 0]
        expected = torch.tensor([0.75, 0.25, 0, 0], dtype=torch.float64)
        torch.testing.assert_close(weights, expected)

    def test_never_is_everything_pruned(self) -> None:
        gate = PruningGate(16, 4, 4)
        nn.init.normal_(gate.fc2.weight, std=30)
        nn.init.constant_(gate.threshold, 50.0)
        weights = gate(torch.randn(64, 16, 2, 2) * 10)
        torch.testing.assert_close(weights.sum(1), torch.ones(64, 16))
        assert (weights == 0).any()
        assert weights.isfinite().all()

    def test_shares_of_a_stage(self) -> None:
        model = small()
        assert model.pruning_shares() == {}
        model(torch.randn(4, 3, 48, 48))
        shares = model.pruning_shares()
        assert list(shares) == ["stage1", "stage3", "stage4", "stage5"]
        left = [gate.last > 0 for gate in model.modules() if isinstance(gate, PruningGate)][:1]
        assert shares["stage1"].zeros == pytest.approx(1 - float(left[0].float().mean()))
        assert shares["stage1"].singles == pytest.approx(
            float((left[0].sum(1) == 1).float().mean())
        )
        assert any(0 < s.zeros < 1 and 0 < s.singles < 1 for s in shares.values())
        fresh = create_model("lmwpnet", **SMALL)
        fresh(torch.zeros(2, 3, 32, 32))
        assert set(fresh.pruning_shares().values()) == {PruningShares(0.0, 0.0)}


class TestDecay:
    def test_units_are_the_branches_of_every_mwpm(self) -> None:
        model = create_model("lmwpnet")
        units = model.decay_units()
        modules = dict(model.named_modules())
        assert len(units) == 9
        assert all(modules[u.name] is u.module for u in units)
        assert [len(u.norms) for u in units] == [4] * 9
        assert units[0].name == "stage1.1.mix"
        assert units[0].resolution_weights == [64, 64, 32, 16]
        assert units[-1].resolution_weights == [4, 4, 2, 1]

    @pytest.mark.parametrize("watched", [False, True], ids=["fused", "one by one"])
    def test_penalty_by_hand(self, watched: bool) -> None:
        model = small()
        decay = DynamicWeightDecay(model.decay_units())
        seen: dict[nn.Module, Tensor] = {}
        twin = copy.deepcopy(model)
        for one in (twin, *([model] if watched else [])):
            for unit in one.decay_units():
                for norm in unit.norms:
                    norm.register_forward_hook(lambda m, args, y: seen.__setitem__(m, y.detach()))
        x = torch.randn(4, 3, 48, 40)
        model(x), twin(x)
        expected = sum(
            0.5 * (seen[norm].mean((2, 3)).abs().mean(0) * norm.weight.square()).sum()
            for unit in twin.decay_units()
            for norm in unit.norms
        )
        torch.testing.assert_close(decay.penalty(), expected, rtol=1e-3, atol=1e-5)
        decay.penalty().backward()
        gammas = [norm.weight for unit in model.decay_units() for norm in unit.norms]
        assert all(gamma.grad is not None for gamma in gammas)


def test_names_in_the_state_dict() -> None:
    state = create_model("lmwpnet").state_dict()
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

    def conv_norm(name: str) -> list[str]:
        return [f"{name}.conv.weight", *(f"{name}.norm.{key}" for key in norm)]

    linear = ("weight", "bias")
    mwpm = [
        *conv_norm("stage1.1.expand"), "stage1.1.expand.prelu.weight",
        "stage1.1.gate.threshold",
        *(f"stage1.1.gate.fc1.{key}" for key in linear),
        "stage1.1.gate.prelu.weight",
        *(f"stage1.1.gate.fc2.{key}" for key in linear),
        *(f"stage1.1.mix.convs.{k}.weight" for k in range(4)),
        *(f"stage1.1.mix.norms.{k}.{key}" for k in range(4) for key in norm),
        *conv_norm("stage1.1.project"), "stage1.1.prelu.weight",
    ]  # fmt: skip
    assert [key for key in state if key.startswith("stage1.1.")] == mwpm
    separable = [*conv_norm("stage2.0.0"), *conv_norm("stage2.0.1"), "stage2.0.1.prelu.weight"]
    assert [key for key in state if key.startswith("stage2.0.")] == separable
    mafm = [
        *(f"decoder.2.attention.{key}.weight" for key in ("reduce", "expand")),
        *(f"decoder.2.attention.spatial.{i}.weight" for i in range(3)),
        *conv_norm("decoder.2.encoder"), *conv_norm("decoder.2.decoder"),
        *(f"decoder.2.{guide}.{key}" for guide in ("channel_guide", "spatial_guide")
          for key in linear),
        *conv_norm("decoder.2.near"), *conv_norm("decoder.2.far"),
        *conv_norm("decoder.2.fuse"), "decoder.2.fuse.prelu.weight",
    ]  # fmt: skip
    assert [key for key in state if key.startswith("decoder.2.")] == mafm
    assert [key for key in state if key.startswith("heads.")] == [
        f"heads.{stride}.{key}" for stride in (2, 4, 8, 16, 32) for key in linear
    ]
    assert {key.split(".")[1] for key in state if key.startswith("context.")} == {
        "pooled", "image", "fuse",
    }  # fmt: skip


def test_weights_and_configuration_survive_a_file(tmp_path) -> None:
    model = small()
    lmwp_models.save_model(model, tmp_path / "m.safetensors", name="lmwpnet", input_size=(48, 48))
    loaded, metadata = lmwp_models.load_model(tmp_path / "m.safetensors")
    assert isinstance(loaded, LMWPNet)
    assert loaded.config == model.config
    assert metadata["model"] == "lmwpnet"
    x = torch.randn(1, 3, 48, 48)
    assert torch.equal(loaded(x), model.eval()(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": [4, 6, 8]}, r"widths: expected 5 positive counts, got \[4, 6, 8\]"),
        ({"widths": [4, 6, 0, 8, 8]}, r"widths: expected 5 positive counts"),
        ({"widths": [4, 6, 8, 8, 3]}, r"widths\[4\]: expected at least 4, got 3"),
        ({"blocks": [1, 1, 1, 1, -1]}, r"blocks\[4\]: expected a non-negative whole number"),
        ({"decoder": [4, 4, 4, 4, 4]}, r"decoder: expected 4 positive counts"),
        ({"expand": 0}, r"expand: expected at least 1, got 0"),
        ({"branches": []}, r"branches: expected at least one pair"),
        ({"branches": [[0, 1, 1]]}, r"branches\[0\]: expected a pair \(octave, dilation\)"),
        ({"branches": [[0, 0]]}, r"branches\[0\]: .* dilation at least 1, got \[0, 0\]"),
        ({"width": 3}, r"unknown option 'width'; known are widths, blocks, expand, branches"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        create_model("lmwpnet", **options)


def test_it_is_called_a_reconstruction() -> None:
    assert "reconstructed" in model_info("LMWP-Net").description
    config = LMWPNetConfig()
    assert LMWPNetConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="network: expected 'lmwpnet', got 'csf'"):
        LMWPNetConfig.from_dict({**config.to_dict(), "network": "csf"})


def test_modules_on_their_own() -> None:
    assert MWPM(3)(torch.randn(2, 3, 9, 7)).shape == (2, 3, 9, 7)
    assert SemanticContext(8)(torch.randn(2, 8, 1, 3)).shape == (2, 8, 1, 3)
    fused = MAFM(3, 4, 5, 6)(
        torch.randn(2, 3, 9, 7), torch.randn(2, 4, 5, 3), torch.randn(2, 5, 1, 1)
    )
    assert fused.shape == (2, 6, 9, 7)
