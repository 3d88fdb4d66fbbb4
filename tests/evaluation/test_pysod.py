import warnings

import numpy as np
import py_sod_metrics
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lmwp_models.evaluation import Evaluator, pysod

TOLERANCE = 1e-9  # the protocol asks for 1e-6


class Library:
    """The metrics of PySODMetrics over one or several images, under our names."""

    def __init__(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the class of the protocol is deprecated there
            self.f = py_sod_metrics.Fmeasure()
        self.e = py_sod_metrics.Emeasure()
        self.s = py_sod_metrics.Smeasure()
        self.weighted = py_sod_metrics.WeightedFmeasure()
        self.mae = py_sod_metrics.MAE()

    def step(self, prediction, mask):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # means of empty regions
            for metric in (self.f, self.e, self.s, self.weighted, self.mae):
                metric.step(prediction, mask)

    def results(self):
        f, e = self.f.get_results(), self.e.get_results()["em"]
        curves = {  # the library counts thresholds down from 255
            "precision": f["pr"]["p"][::-1],
            "recall": f["pr"]["r"][::-1],
            "f": f["fm"]["curve"][::-1],
            "e": e["curve"][::-1],
        }
        scores = {
            "max_f_image": f["fm"]["curve"].max(),
            "mean_f_image": f["fm"]["curve"].mean(),
            "adaptive_f_image": f["fm"]["adp"],
            "s_measure": self.s.get_results()["sm"],
            "e_max": e["curve"].max(),
            "e_mean": e["curve"].mean(),
            "e_adaptive": e["adp"],
            "weighted_f": self.weighted.get_results()["wfm"],
            "mae": self.mae.get_results()["mae"],
        }
        return curves, scores


def both(pairs):
    library, ours = Library(), Evaluator(["pysod"])
    for prediction, mask in pairs:
        library.step(prediction, mask)
        ours.update(prediction, mask)
    return library.results(), (ours.curves()["pysod"], ours.compute()["pysod"])


def assert_equal(pairs):
    (expected_curves, expected), (curves, scores) = both(pairs)
    assert curves.keys() == expected_curves.keys()
    for name, curve in expected_curves.items():
        np.testing.assert_allclose(curves[name], curve, rtol=TOLERANCE, atol=TOLERANCE)
    if np.isnan(expected["s_measure"]):
        del expected["s_measure"]
        assert 0 <= scores.pop("s_measure") <= 1
    assert scores == pytest.approx(expected, rel=TOLERANCE, abs=TOLERANCE)


def test_equals_the_library_on_every_kind_of_image(cases):
    for label, prediction, mask in cases:
        try:
            assert_equal([(prediction, mask)])
        except AssertionError as error:
            raise AssertionError(label) from error


def test_equals_the_library_on_a_set(cases):
    # The library has no S-measure where an object ends on the last row or column.
    def is_defined(prediction, mask):
        library = Library()
        library.step(prediction, mask)
        return np.isfinite(library.results()[1]["s_measure"])

    pairs = [(prediction, mask) for _, prediction, mask in cases[::5] if mask.size > 1]
    pairs = [pair for pair in pairs if is_defined(*pair)]
    assert len(pairs) > 20
    assert_equal(pairs)


masks = st.sampled_from([0, 128, 129, 255])


@given(
    st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
        lambda shape: st.tuples(
            hnp.arrays(np.uint8, shape), hnp.arrays(np.uint8, shape, elements=masks)
        )
    )
)
@settings(max_examples=60, deadline=None)
def test_equals_the_library_on_arbitrary_images(pair):
    assert_equal([pair])


def test_an_object_on_the_last_row_still_has_an_s_measure():
    mask = np.zeros((8, 8), np.uint8)
    mask[-1, 2:5] = 255
    (_, expected), (_, scores) = both([(mask, mask)])
    assert np.isnan(expected["s_measure"])
    assert scores["s_measure"] == pytest.approx(1, abs=1e-6)


def test_a_perfect_map_has_perfect_scores():
    mask = np.zeros((40, 50), np.uint8)
    mask[10:25, 15:40] = 255
    scores = pysod.summarise(pysod.measure(mask, mask))
    assert scores.pop("mae") == 0
    for name in ("e_max", "e_mean", "e_adaptive"):
        assert scores.pop(name) <= mask.size / (mask.size - 1) + 1e-12  # divided by N - 1
    # Threshold 0 takes in every pixel, so the means of curves stay below 1.
    assert scores.pop("mean_f_image") > 0.99
    assert scores == pytest.approx(dict.fromkeys(scores, 1.0), abs=1e-9)


def test_stretching_leaves_a_constant_map_alone():
    mask = np.zeros((6, 6), np.uint8)
    mask[2:4, 2:4] = 255
    statistics = pysod.measure(np.full((6, 6), 51, np.uint8), mask)
    assert statistics["mae"] == pytest.approx((32 * 0.2 + 4 * 0.8) / 36)
    assert statistics["recall"][51] == 1
    assert statistics["recall"][52] == 0


@given(st.tuples(st.integers(2, 15), st.integers(2, 15)), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_pixel_counting_scores_ignore_position(shape, seed):
    rng = np.random.default_rng(seed)
    prediction = rng.integers(0, 256, shape, dtype=np.uint8)
    mask = (rng.random(shape) < 0.3) * np.uint8(255)
    upright = pysod.measure(prediction, mask)
    turned = pysod.measure(np.rot90(prediction), np.rot90(mask))
    for name in ("precision", "recall", "f", "e", "adaptive_f", "adaptive_e", "mae"):
        np.testing.assert_allclose(turned[name], upright[name], rtol=1e-12, atol=1e-12)
