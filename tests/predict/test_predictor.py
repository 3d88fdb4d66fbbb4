import numpy as np
import pytest
import torch
from torch import nn

from lmwp_models.errors import UserError
from lmwp_models.predict import Predictor

MEAN, STD = 0.485, 0.229  # of red in ImageNet


def bilinear(plane, height, width):
    """Bilinear resize of [h, w] with pixel centres aligned, edges repeated, no smoothing."""

    def taps(size, target):
        position = np.clip((np.arange(target) + 0.5) * size / target - 0.5, 0, size - 1)
        low = np.minimum(position.astype(int), max(size - 2, 0))
        return low, np.minimum(low + 1, size - 1), position - low

    top, bottom, dy = taps(plane.shape[0], height)
    left, right, dx = taps(plane.shape[1], width)
    rows = plane[top] * (1 - dy)[:, None] + plane[bottom] * dy[:, None]
    return rows[:, left] * (1 - dx) + rows[:, right] * dx


def expected_map(image, size, gain, bias):
    red = bilinear(image[:, :, 0] / 255.0, *size)
    saliency = 1 / (1 + np.exp(-(gain * (red - MEAN) / STD + bias)))
    return bilinear(saliency, *image.shape[:2]) * 255


@pytest.mark.parametrize("shape", [(224, 224), (301, 199), (97, 400), (1, 1), (17, 1)])
@pytest.mark.parametrize("size", [(224, 224), (48, 80)])
def test_equals_the_pipeline_in_float64(make_network, photograph, shape, size):
    image = photograph(*shape)
    saliency = Predictor(make_network(gain=2.5, bias=-0.3), size)(image)
    expected = expected_map(image, size, 2.5, -0.3)
    assert saliency.dtype == np.uint8
    assert saliency.shape == shape
    # Truncated, so below the exact level by less than one; float32 may cross a level.
    assert np.all(saliency <= expected + 1e-3)
    assert np.all(saliency > expected - 1 - 1e-3)
    assert np.mean(saliency == np.floor(expected)) > 0.99


def test_levels_are_truncated_not_rounded(make_network):
    level = 100.9 / 255
    network = make_network(gain=0.0, bias=float(np.log(level / (1 - level))))
    assert np.all(Predictor(network)(np.zeros((5, 9, 3), np.uint8)) == 100)


@pytest.mark.parametrize(("logit", "level"), [(-200.0, 0), (200.0, 255)])
def test_saturated_logits_fill_the_range(make_network, logit, level):
    saliency = Predictor(make_network(gain=0.0, bias=logit))(np.zeros((37, 61, 3), np.uint8))
    # Weights of a float32 interpolation may sum to just under one, and levels are truncated.
    assert np.all(np.abs(saliency.astype(int) - level) <= 1)


def test_the_sigmoid_comes_before_the_resize(make_network):
    edge = np.zeros((16, 16, 3), np.uint8)
    edge[:, 8:] = 255
    image = np.repeat(np.repeat(edge, 4, axis=0), 4, axis=1)
    saliency = Predictor(make_network(gain=10.0), (16, 16))(image)
    # Between probabilities 0 and 1 the ramp is linear; between logits -21 and 22 it is a step.
    assert saliency[30, 28:36].tolist() == [0, 0, 31, 95, 159, 223, 255, 255]


@pytest.mark.parametrize(
    ("shape", "multiple", "seen"),
    [
        ((225, 321), 16, (240, 336)),
        ((240, 304), 16, (240, 304)),
        ((1, 16), 16, (16, 16)),
        ((225, 321), 1, (225, 321)),
    ],
)
def test_native_size_is_rounded_up(make_network, photograph, shape, multiple, seen):
    network = make_network(size_multiple=multiple)
    predictor = Predictor(network, "native")
    image = photograph(*shape)
    assert predictor(image).shape == shape
    assert network.inputs[0].shape == (1, 3, *seen)
    assert predictor.size_for(image) == seen


@pytest.mark.parametrize("size", [(64, 96), "native"])
def test_a_batch_gives_the_maps_of_its_images_in_order(make_network, photograph, size):
    shapes = [(50, 60), (33, 71), (50, 60), (49, 64), (128, 10)]
    images = [photograph(*shape, seed=i) for i, shape in enumerate(shapes)]
    network = make_network(gain=3.0)
    predictor = Predictor(network, size)
    together = predictor.predict_batch(images)
    batches = [len(x) for x in network.inputs]
    assert batches == ([5] if size != "native" else [3, 1, 1])
    for image, saliency in zip(images, together, strict=True):
        np.testing.assert_array_equal(saliency, predictor(image))


def test_an_empty_batch(make_network):
    assert Predictor(make_network()).predict_batch([]) == []


def test_a_network_in_training_is_put_into_evaluation_mode(photograph):
    class Noisy(nn.Module):
        size_multiple = 1

        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x):
            return self.norm(x)[:, :1]

    network = Noisy().train()
    predictor = Predictor(network, (32, 32))
    image = photograph(40, 40)
    first = predictor(image)
    network.train()  # as a trainer does after validation
    np.testing.assert_array_equal(predictor(image), first)
    assert network.norm.num_batches_tracked == 0
    assert not network.training


def test_predicting_keeps_no_graph(make_network, photograph):
    network = make_network()
    Predictor(network)(photograph(30, 30))
    assert network.gain.grad is None
    assert not network.inputs[0].requires_grad


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(make_network, photograph, broken):
    with pytest.raises(UserError, match="not finite"):
        Predictor(make_network(gain=broken))(photograph(30, 30))


def test_an_input_size_that_does_not_fit_is_refused(make_network):
    with pytest.raises(UserError, match=r"225x321: this network needs multiples of 16.*240x336"):
        Predictor(make_network(), (225, 321))
    assert Predictor(make_network(size_multiple=1), (225, 321)).input_size == (225, 321)


def test_a_least_size_is_kept(make_network, photograph):
    network = make_network(size_multiple=16)
    network.min_size = 40
    predictor = Predictor(network, "native")
    assert predictor(photograph(20, 50)).shape == (20, 50)
    assert network.inputs[0].shape == (1, 3, 48, 64)
    with pytest.raises(UserError, match="multiples of 16 from 40 on, such as 48x64, or"):
        Predictor(network, (32, 64))


def test_a_network_without_a_size_multiple_is_refused(make_network):
    with pytest.raises(TypeError, match="size_multiple must be an int"):
        Predictor(make_network(size_multiple=16.0))


def test_half_precision_logits(photograph):
    class Half(nn.Module):
        size_multiple = 1

        def forward(self, x):
            return x[:, :1].to(torch.bfloat16)

    saliency = Predictor(Half(), (32, 32))(photograph(30, 41))
    expected = expected_map(photograph(30, 41), (32, 32), 1, 0)
    assert np.abs(saliency - expected).max() < 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu(make_network, photograph):
    images = [photograph(50, 60), photograph(97, 33)]
    network = make_network(gain=2.5)
    on_cpu = Predictor(network).predict_batch(images)
    on_gpu = Predictor(network, device="cuda").predict_batch(images)
    for expected, saliency in zip(on_cpu, on_gpu, strict=True):
        assert np.abs(expected.astype(int) - saliency).max() <= 1
