import pickle

import numpy as np
import pytest

from lmwp_models.errors import UserError
from lmwp_models.evaluation import PROTOCOLS, Evaluator


def fed(pairs, protocols=tuple(PROTOCOLS)):
    evaluator = Evaluator(protocols)
    for prediction, mask in pairs:
        evaluator.update(prediction, mask)
    return evaluator


@pytest.fixture(scope="module")
def pairs(cases):
    return [(prediction, mask) for _, prediction, mask in cases[::6]]


def test_scores_are_keyed_by_protocol_and_metric(pairs):
    scores = fed(pairs).compute()
    assert list(scores) == ["salmetric", "pysod"]
    assert list(scores["salmetric"]) == ["max_f_dataset", "mean_f_dataset", "mae"]
    assert list(scores["pysod"]) == [
        "max_f_image",
        "mean_f_image",
        "adaptive_f_image",
        "s_measure",
        "e_max",
        "e_mean",
        "e_adaptive",
        "weighted_f",
        "mae",
    ]
    assert all(type(score) is float for metrics in scores.values() for score in metrics.values())


def test_merged_parts_equal_the_whole(pairs):
    whole = fed(pairs)
    merged = Evaluator()
    for part in (pairs[:3], [], pairs[3:10], pairs[10:]):
        merged.merge(pickle.loads(pickle.dumps(fed(part))))
    assert merged.count == whole.count == len(pairs)
    for protocol, scores in whole.compute().items():
        assert merged.compute()[protocol] == pytest.approx(scores, rel=1e-12)


def test_merging_leaves_the_other_alone(pairs):
    first, second = fed(pairs[:2]), fed(pairs[2:4])
    before = second.compute()
    first.merge(second)
    first.update(*pairs[5])
    assert second.compute() == before


def test_merging_other_protocols_is_refused():
    with pytest.raises(ValueError, match="cannot merge"):
        Evaluator(["pysod"]).merge(Evaluator(["salmetric"]))


def test_curves_give_the_scores(pairs):
    evaluator = fed(pairs)
    curves, scores = evaluator.curves(), evaluator.compute()
    precision, recall = curves["salmetric"]["precision"], curves["salmetric"]["recall"]
    f = 1.3 * precision * recall / (0.3 * precision + recall)
    assert f.shape == (256,)
    assert f.max() == scores["salmetric"]["max_f_dataset"]
    assert curves["pysod"]["f"].max() == scores["pysod"]["max_f_image"]
    assert np.all(np.diff(curves["salmetric"]["recall"]) <= 0)
    assert np.all(np.diff(curves["pysod"]["recall"]) <= 0)


def test_an_unknown_protocol_is_named():
    with pytest.raises(UserError, match="'matlab': expected one of salmetric, pysod"):
        Evaluator(["salmetric", "matlab"])


def test_no_image_no_score():
    with pytest.raises(ValueError, match="no image"):
        Evaluator().compute()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("prediction", "mask", "message"),
    [
        (np.zeros((4, 5), np.uint8), np.zeros((5, 4), np.uint8), r"\[4, 5\].*\[5, 4\]"),
        (np.zeros((4, 5), np.float32), np.zeros((4, 5), np.uint8), "prediction must be uint8"),
        (np.zeros((4, 5), np.uint8), np.zeros((4, 5), bool), "mask must be uint8"),
        (np.zeros((4, 5, 1), np.uint8), np.zeros((4, 5), np.uint8), r"\[4, 5, 1\]"),
        (np.zeros((0, 5), np.uint8), np.zeros((0, 5), np.uint8), "not empty"),
    ],
)
def test_wrong_arrays_are_refused(protocol, prediction, mask, message):
    with pytest.raises(ValueError, match=message):
        Evaluator([protocol]).update(prediction, mask)
