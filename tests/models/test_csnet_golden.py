"""CSNet against the outputs of the authors' network; runs where the reference data are."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from lmwp_models.csnet import CSNet
from lmwp_models.importer import import_csnet
from lmwp_models.inference import optimize_for_inference
from lmwp_models.registry import create_model
from lmwp_models.weights import load_model

TOLERANCE = 2e-4  # the authors' own float32 is up to 3e-5 away from float64
RELEASED = ("csnet-L-x1", "csnet-L-x2")
FORMULA = {"5-5": "csnet-5-5", "3-1": "csnet-3-1", "1-0": "csnet-1-0", "5-5-x2.0": "csnet-x2"}


@pytest.fixture(scope="module")
def golden(reference_dir: Path) -> Path:
    return reference_dir / "golden"


@pytest.fixture(scope="module")
def images(golden):
    with np.load(golden / "inputs.npz") as file:
        return {
            key: torch.from_numpy(file[key]) for key in file.files if file[key].dtype == np.float32
        }


@pytest.fixture
def released(golden):
    def load(name: str) -> CSNet:
        model = create_model(name)
        model.load_state_dict(safetensors.torch.load_file(golden / f"{name}.safetensors"))
        return model.eval()

    return load


def penalty(model: CSNet, image: torch.Tensor, outputs: dict) -> torch.Tensor:
    """R of dynamic weight decay with its resolution weights, written out."""
    total = torch.zeros(())
    for unit in model.decay_units():
        for y, norm, f in zip(outputs[unit.name], unit.norms, unit.resolution_weights, strict=True):
            gap = y.detach().mean((2, 3)).abs()
            total = total + 0.5 * f * (gap * norm.weight.square()).sum() / len(image)
    return total


def watch(model: CSNet) -> dict[str, list[torch.Tensor]]:
    outputs: dict[str, list[torch.Tensor]] = {}
    for unit in model.decay_units():
        unit.module.register_forward_hook(
            lambda module, args, ys, name=unit.name: outputs.__setitem__(name, ys)
        )
    return outputs


@pytest.mark.parametrize("name", RELEASED)
def test_keys_and_shapes_in_order(golden, name):
    listed = json.loads((golden / f"{name}.config.json").read_text())["state_dict"]
    state = create_model(name).state_dict()
    assert [(k, list(v.shape)) for k, v in state.items()] == [(k, s[1]) for k, s in listed.items()]


@pytest.mark.parametrize("name", RELEASED)
def test_logits(golden, images, released, name):
    model = released(name)
    with np.load(golden / f"{name}.logits.npz") as expected, torch.no_grad():
        assert len(expected.files) == 5
        for key in expected.files:
            got = model(images[key.removeprefix("logits/")]).numpy()
            assert np.abs(got - expected[key]).max() < TOLERANCE, key


@pytest.mark.parametrize("name", RELEASED)
def test_logits_of_the_fused_network(golden, images, released, name):
    fused = optimize_for_inference(released(name))
    with np.load(golden / f"{name}.logits.npz") as expected:
        for key in expected.files:
            got = fused(images[key.removeprefix("logits/")]).numpy()
            assert np.abs(got - expected[key]).max() < TOLERANCE, key


@pytest.mark.parametrize("name", RELEASED)
def test_imported_files_give_the_same_network(golden, images, released, name, tmp_path):
    out = tmp_path / "model.safetensors"
    import_csnet(golden / f"{name}.pth.tar", golden / f"{name}.bin", out)
    model, metadata = load_model(out)
    assert metadata["model"] == name.lower()
    with torch.no_grad():
        assert torch.equal(model(images["smooth64"]), released(name)(images["smooth64"]))


@pytest.mark.parametrize("name", RELEASED)
def test_intermediates(golden, images, released, name):
    model = released(name)
    outputs: dict[str, list[torch.Tensor]] = {}
    for path, module in model.named_modules():
        module.register_forward_hook(
            lambda module, args, y, path=path: outputs.__setitem__(
                path, y if isinstance(y, list) else [y]
            )
        )
    with np.load(golden / f"{name}.intermediates.npz") as expected, torch.no_grad():
        current = None
        for key in sorted(expected.files):
            image, rest = key.split("/", 1)
            if image != current:
                model(images[image])
                current = image
            path, _, place = rest.partition("/b")  # cls_layer has no branch
            branch, _, step = place.partition("@")
            stride = int(step or 1)
            y = outputs[path][int(branch or 0)][:, :, ::stride, ::stride].numpy()
            want = expected[key]
            assert np.abs(y[: len(want)] - want).max() < TOLERANCE, key


@pytest.mark.parametrize("name", RELEASED)
def test_training_mode_penalty_and_gradients(golden, images, released, name):
    model = released(name).train()
    outputs = watch(model)
    image = images["smooth64"]
    logits = model(image)
    with np.load(golden / f"{name}.train_dwd.npz") as expected:
        assert np.abs(logits.detach().numpy() - expected["train_logits"]).max() < 5e-4
        total = penalty(model, image, outputs)
        assert float(total.detach()) == pytest.approx(float(expected["R"]), rel=1e-4)
        parameters = dict(model.named_parameters())
        decayed = [key.removeprefix("grad/") for key in expected.files if key.startswith("grad/")]
        names = {id(p): key for key, p in parameters.items()}
        gammas = {names[id(n.weight)] for u in model.decay_units() for n in u.norms}
        assert gammas == set(decayed)
        total.backward(retain_graph=True)
        for key in decayed:
            close(parameters[key].grad, expected[f"grad/{key}"], key)
        model.zero_grad()
        loss = F.binary_cross_entropy_with_logits(logits, (image[:, :1] > 0).float())
        assert float(loss.detach()) == pytest.approx(float(expected["bce_loss"]), rel=1e-4)
        loss.backward()
        trained = [k.removeprefix("bcegrad/") for k in expected.files if k.startswith("bcegrad/")]
        assert len(trained) == 13
        for key in trained:
            close(parameters[key].grad, expected[f"bcegrad/{key}"], key)
        for key in expected.files:
            if key.startswith("gap/"):
                path, branch = key.removeprefix("gap/").rsplit("/b", 1)
                close(outputs[path][int(branch)].detach().mean((2, 3)), expected[key], key)


def close(got: torch.Tensor, want: np.ndarray, key: str) -> None:
    """Within 5e-3 of the largest value; the authors' float32 is up to 1.2e-3 from float64."""
    assert np.abs(got.numpy() - want).max() <= 5e-3 * np.abs(want).max() + 1e-9, key


@pytest.mark.parametrize("variant", FORMULA)
def test_formula_weights(golden, images, fill_by_formula, variant):
    listed = json.loads((golden / "unpruned_hashfill.json").read_text())[variant]
    model = create_model(FORMULA[variant])
    state = model.state_dict()
    assert [[k, list(v.shape)] for k, v in state.items()] == listed["state_dict"]
    fill_by_formula(model)
    image = images["smooth64"]
    with np.load(golden / "unpruned_hashfill.npz") as expected:
        with torch.no_grad():
            got = model.eval()(image).numpy()
        assert np.abs(got - expected[f"{variant}/eval_logits"]).max() < TOLERANCE
        outputs = watch(model.train())
        got = model(image).detach().numpy()
        assert np.abs(got - expected[f"{variant}/train_logits"]).max() < 5e-4
        if f"{variant}/train_R" in expected.files:
            total = penalty(model, image, outputs)
            assert float(total.detach()) == pytest.approx(
                float(expected[f"{variant}/train_R"]), rel=1e-4
            )
