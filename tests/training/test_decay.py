"""Dynamic weight decay: its value, its gradient, its decoupled step, and who feels it."""

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from lmwp_models.csnet import DecayUnit
from lmwp_models.registry import create_model
from lmwp_models.training.decay import DynamicWeightDecay
from lmwp_models.training.optim import build_optimizer
from lmwp_models.training.recipe import OptimizerSection


class TwoBranches(nn.Module):
    """Batch norm and PReLU on two branches, as a network's unit has them."""

    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList([nn.BatchNorm2d(3), nn.BatchNorm2d(2)])
        self.prelus = nn.ModuleList([nn.PReLU(3), nn.PReLU(2)])
        for norm in self.norms:
            nn.init.uniform_(norm.weight, -1, 1)
            nn.init.uniform_(norm.bias, -1, 1)

    def forward(self, xs):
        return [p(n(x)) for x, n, p in zip(xs, self.norms, self.prelus, strict=True)]

    def unit(self):
        return DecayUnit("unit", self, list(self.norms), [8.0, 4.0])


@pytest.fixture
def unit():
    return TwoBranches()


@pytest.fixture
def features():
    return [torch.randn(4, 3, 6, 5), torch.randn(4, 2, 3, 3)]


@pytest.mark.parametrize("scaling", ["uniform", "resolution"])
def test_penalty_and_its_gradient_by_hand(unit, features, scaling):
    decay = DynamicWeightDecay([unit.unit()], scaling)
    outputs = unit(features)
    penalty = decay.penalty()
    penalty.backward()

    expected = 0.0
    for factor, norm, out in zip([8.0, 4.0], unit.norms, outputs, strict=True):
        factor = 1.0 if scaling == "uniform" else factor
        for c, gamma in enumerate(norm.weight.detach().double()):
            gaps = [abs(out[n, c].double().mean().item()) for n in range(len(out))]
            expected += 0.5 * factor * sum(gaps) / len(gaps) * gamma.item() ** 2
            gradient = factor * sum(gaps) / len(gaps) * gamma.item()
            assert norm.weight.grad[c].item() == pytest.approx(gradient, rel=1e-5)
        assert norm.bias.grad is None  # only the gammas are decayed
    assert penalty.item() == pytest.approx(expected, rel=1e-5)


def test_decoupled_step_is_equation_3(unit, features):
    decay = DynamicWeightDecay([unit.unit()])
    outputs = unit(features)
    before = [norm.weight.detach().clone() for norm in unit.norms]
    decay.decay_(0.3)
    for norm, gamma, out in zip(unit.norms, before, outputs, strict=True):
        strength = out.detach().mean((2, 3)).abs().mean(0)
        torch.testing.assert_close(norm.weight.detach(), gamma - 0.3 * strength * gamma)


def test_decoupled_step_never_turns_a_gamma_around(unit, features):
    decay = DynamicWeightDecay([unit.unit()])
    unit(features)
    before = [norm.weight.detach().clone() for norm in unit.norms]
    decay.decay_(1e6)
    for norm, gamma in zip(unit.norms, before, strict=True):
        assert (norm.weight.detach() * gamma >= 0).all()
        assert norm.weight.detach().abs().max() == 0


def test_evaluation_passes_are_not_watched(unit, features):
    decay = DynamicWeightDecay([unit.unit()])
    unit.eval()
    unit(features)
    with pytest.raises(RuntimeError, match="no features seen yet"):
        decay.penalty()


def test_removed_hooks_watch_no_more(unit, features):
    decay = DynamicWeightDecay([unit.unit()])
    unit(features)
    first = decay.penalty().item()
    decay.remove()
    unit([10 + 5 * x for x in features])
    assert decay.penalty().item() == first


def test_dynamic_gammas_leave_the_ordinary_decay():
    model = create_model("csnet-x1")
    decay = DynamicWeightDecay(model.decay_units())
    assert len(decay.gammas) == 99
    optimizer = build_optimizer(model, OptimizerSection(weight_decay=5e-3), decay.gammas)
    decays = {
        id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    assert len(decays) == len(list(model.parameters()))
    names = {id(p): name for name, p in model.named_parameters()}
    undecayed = {names[key] for key, value in decays.items() if value == 0}
    assert len(undecayed) == 99
    assert all(".bns." in name and name.endswith(".weight") for name in undecayed)
    assert not any(name.startswith("oct_fuse") for name in undecayed)


@pytest.mark.parametrize("size", ["x1", "x2"])
def test_penalty_of_the_released_networks(reference_dir, size):
    golden = np.load(reference_dir / "golden" / f"csnet-L-{size}.train_dwd.npz")
    inputs = np.load(reference_dir / "golden" / "inputs.npz")
    model = create_model(f"csnet-l-{size}")
    weights = reference_dir / "golden" / f"csnet-L-{size}.safetensors"
    model.load_state_dict(safetensors.torch.load_file(weights))
    model.train()
    decay = DynamicWeightDecay(model.decay_units(), "resolution")
    with torch.no_grad():
        logits = model(torch.from_numpy(inputs["smooth64"]))
    np.testing.assert_allclose(logits.numpy(), golden["train_logits"], atol=2e-4)
    penalty = decay.penalty()
    assert penalty.item() == pytest.approx(float(golden["R"]), rel=1e-5)
    penalty.backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    expected = {key[5:]: golden[key] for key in golden.files if key.startswith("grad/")}
    assert gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = np.abs(gradient).max()
        np.testing.assert_allclose(gradients[name].numpy(), gradient, atol=2e-3 * scale + 1e-12)


def test_means_kept_by_the_layers_are_those_of_their_outputs():
    model = create_model("csnet-x1").train()
    units = model.decay_units()
    kept = DynamicWeightDecay(units, "resolution")
    outputs = {}
    for unit in units:
        unit.module.register_forward_hook(lambda m, args, ys: outputs.__setitem__(m, ys))
    model(torch.randn(2, 3, 32, 48))
    expected = 0.0
    for unit in units:
        assert unit.module.channel_means is not None
        branches = zip(unit.norms, unit.resolution_weights, outputs[unit.module], strict=True)
        for norm, factor, y in branches:
            strength = factor * y.detach().double().mean((2, 3)).abs().mean(0)
            expected += 0.5 * (strength * norm.weight.detach().double().square()).sum().item()
    assert kept.penalty().item() == pytest.approx(expected, rel=1e-5)


def test_layers_whose_modules_are_watched_run_them():
    model = create_model("csnet-x1").train()
    layer = model.decay_units()[0].module
    x = torch.randn(2, 3, 32, 32)
    first = model(x)
    assert layer.channel_means is not None
    norm = next(iter(layer.bns.values()))
    seen = []
    norm.register_forward_hook(lambda module, args, y: seen.append(y))
    torch.testing.assert_close(model(x), first, rtol=1e-4, atol=1e-4)
    assert len(seen) == 1
    assert layer.channel_means is None
    assert norm.num_batches_tracked == 2
