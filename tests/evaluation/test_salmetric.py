import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lmwp_models.evaluation import Evaluator, salmetric

shapes = st.tuples(st.integers(1, 20), st.integers(1, 20))
grey_pairs = shapes.flatmap(
    lambda shape: st.tuples(hnp.arrays(np.uint8, shape), hnp.arrays(np.uint8, shape))
)


def scores_of(pairs):
    evaluator = Evaluator(["salmetric"])
    for prediction, mask in pairs:
        evaluator.update(prediction, mask)
    return evaluator.compute()["salmetric"]


def naive_scores(pairs):
    """The protocol in its own words: one threshold, one image at a time."""
    f = []
    for threshold in range(256):
        precisions, recalls = [], []
        for prediction, mask in pairs:
            predicted, salient = prediction > threshold, mask > 128
            hits = np.logical_and(predicted, salient).sum()
            precisions.append((hits + 1e-4) / (predicted.sum() + 1e-4))
            recalls.append((hits + 1e-4) / (salient.sum() + 1e-4))
        precision, recall = np.mean(precisions), np.mean(recalls)
        f.append(1.3 * precision * recall / (0.3 * precision + recall))
    errors = [np.mean(np.abs(prediction / 255.0 - mask / 255.0)) for prediction, mask in pairs]
    return {"max_f_dataset": max(f), "mean_f_dataset": np.mean(f), "mae": np.mean(errors)}


def test_equals_the_protocol_taken_literally(cases):
    pairs = [(prediction, mask) for _, prediction, mask in cases[::3]]
    assert scores_of(pairs) == pytest.approx(naive_scores(pairs), rel=1e-12)


@given(st.lists(grey_pairs, min_size=1, max_size=3))
@settings(max_examples=25, deadline=None)
def test_equals_the_protocol_on_arbitrary_sets(pairs):
    assert scores_of(pairs) == pytest.approx(naive_scores(pairs), rel=1e-12)


def test_hand_computed_example():
    prediction = np.uint8([[200, 100], [0, 0]])
    mask = np.uint8([[255, 255], [0, 0]])
    # Between 0 and 99 both object pixels are found and nothing else.
    scores = scores_of([(prediction, mask)])
    assert scores["max_f_dataset"] == pytest.approx(1, abs=1e-4)
    assert scores["mae"] == pytest.approx((55 + 155) / 4 / 255)


def test_thresholds_are_exclusive():
    mask = np.uint8([[255, 0]])
    statistics = salmetric.measure(np.uint8([[7, 0]]), mask)
    assert statistics["recall"][6] == pytest.approx(1)
    assert statistics["recall"][7] == pytest.approx(0, abs=1e-3)


def test_an_empty_prediction_has_precision_one():
    statistics = salmetric.measure(np.zeros((4, 4), np.uint8), np.full((4, 4), 255, np.uint8))
    assert statistics["precision"] == pytest.approx(np.ones(256))
    assert statistics["recall"] == pytest.approx(np.zeros(256), abs=1e-4)


def test_ground_truth_is_binary_for_f_and_grey_for_mae():
    prediction = np.uint8([[128, 129]])
    statistics = salmetric.measure(prediction, prediction)
    assert statistics["mae"] == 0
    assert statistics["recall"][128] == pytest.approx(1)  # only the 129 counts as object
    assert statistics["precision"][0] == pytest.approx(0.5, abs=1e-4)


def test_precision_and_recall_are_averaged_before_they_are_combined():
    wide = np.full((1, 10), 255, np.uint8), np.uint8([[255] + [0] * 9])
    narrow = np.uint8([[255] + [0] * 9]), np.full((1, 10), 255, np.uint8)
    mean_of_f = np.mean([scores_of([pair])["max_f_dataset"] for pair in (wide, narrow)])
    precision = recall = 0.55
    expected = 1.3 * precision * recall / (0.3 * precision + recall)
    joint = scores_of([wide, narrow])["max_f_dataset"]
    assert joint == pytest.approx(expected, abs=1e-3)
    assert abs(joint - mean_of_f) > 0.05


@given(shapes.flatmap(lambda s: hnp.arrays(np.uint8, s, elements=st.sampled_from([0, 255]))))
@settings(max_examples=25, deadline=None)
def test_a_perfect_map_scores_one_and_zero(mask):
    scores = scores_of([(mask, mask)])
    assert scores["max_f_dataset"] == pytest.approx(1)
    assert scores["mae"] == 0


@given(grey_pairs)
@settings(max_examples=25, deadline=None)
def test_only_the_multiset_of_pixels_matters(pair):
    order = np.random.default_rng(0).permutation(pair[0].size)
    shuffled = tuple(array.ravel()[order].reshape(array.shape) for array in pair)
    assert scores_of([shuffled]) == pytest.approx(scores_of([pair]), rel=1e-12)


@given(grey_pairs)
@settings(max_examples=25, deadline=None)
def test_scores_stay_in_the_unit_interval_and_ignore_repetition(pair):
    scores = scores_of([pair])
    assert all(0 <= score <= 1 + 1e-12 for score in scores.values())
    assert scores["mean_f_dataset"] <= scores["max_f_dataset"]
    assert scores_of([pair] * 3) == pytest.approx(scores, rel=1e-12)


def test_takes_views_of_any_stride():
    rng = np.random.default_rng(0)
    prediction, mask = rng.integers(0, 256, (2, 16, 20), dtype=np.uint8)
    views = prediction[::2, ::-3], mask[::2, ::-3]
    copies = tuple(np.ascontiguousarray(view) for view in views)
    assert scores_of([views]) == scores_of([copies])
