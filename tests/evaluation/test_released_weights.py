"""The networks released with the CSNet paper on real pictures, kept outside of the project."""

import tarfile

import pytest
import safetensors.torch
import torch

from lmwp_models import create_model
from lmwp_models.data.layouts import find_pairs
from lmwp_models.data.sources import FolderSource, SubsetSource
from lmwp_models.evaluation import evaluate, evaluate_maps
from lmwp_models.predict import Predictor, predict_folder

FEW = 40


@pytest.fixture(autouse=True)
def _fast_and_steady():
    """One thread, and no denormals: the weights hold some, which cost time and change no map."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    yield
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def duts_te(reference_dir, tmp_path_factory):
    """Every tenth pair of DUTS-TE: 502 pictures."""
    folder = tmp_path_factory.mktemp("duts")
    with tarfile.open(reference_dir / "data" / "DUTS-TE-502.tar") as tar:
        tar.extractall(folder, filter="data")
    return FolderSource(find_pairs(folder))


@pytest.fixture
def released(reference_dir):
    def load(name):
        weights = reference_dir / "golden" / f"csnet-L-{name}.safetensors"
        model = create_model(f"csnet-l-{name}")
        model.load_state_dict(safetensors.torch.load_file(weights))
        return Predictor(model, (224, 224))

    return load


# Measured once on the first 40 pictures by name, by the protocol's formulas one threshold at a
# time (salmetric) and by PySODMetrics (pysod).
FIRST_PICTURES = {
    "x1": {
        "salmetric": {"max_f_dataset": 0.8482008, "mean_f_dataset": 0.7793626, "mae": 0.0714699},
        "pysod": {
            "max_f_image": 0.8320067,
            "mean_f_image": 0.7676388,
            "adaptive_f_image": 0.7335427,
            "s_measure": 0.8534294,
            "e_max": 0.9179202,
            "e_mean": 0.8605356,
            "e_adaptive": 0.8457264,
            "weighted_f": 0.7112149,
            "mae": 0.0719269,
        },
    },
    "x2": {
        "salmetric": {"max_f_dataset": 0.8645888, "mean_f_dataset": 0.8035603, "mae": 0.0639801},
        "pysod": {
            "max_f_image": 0.8479308,
            "mean_f_image": 0.7903328,
            "adaptive_f_image": 0.7637527,
            "s_measure": 0.8677718,
            "e_max": 0.9220772,
            "e_mean": 0.8725576,
            "e_adaptive": 0.8756780,
            "weighted_f": 0.7327147,
            "mae": 0.0645828,
        },
    },
}

# All 502 pictures: max F and MAE under salmetric, from the released code's own test pipeline.
ALL_PICTURES = {"x1": (0.8020, 0.0815), "x2": (0.8221, 0.0746)}


@pytest.mark.parametrize("name", FIRST_PICTURES)
def test_scores_of_maps_written_and_read_again(name, released, duts_te, tmp_path):
    source = SubsetSource(duts_te, range(FEW))
    predictor = released(name)
    images = tmp_path / "images"
    images.mkdir()
    for pair in duts_te.pairs[:FEW]:
        (images / pair.image.name).symlink_to(pair.image)
    written = predict_folder(predictor, images, tmp_path / "maps")
    assert written.failed == []

    result = evaluate_maps(tmp_path / "maps", source)
    assert (result.count, result.resized) == (FEW, 0)
    # A wrong resize, rounding or threshold moves these by 2e-4 to 3e-2.
    for protocol, scores in FIRST_PICTURES[name].items():
        assert result.metrics[protocol] == pytest.approx(scores, abs=5e-5)

    few = SubsetSource(duts_te, range(0, FEW, 10))
    assert evaluate(predictor, few).metrics == evaluate_maps(tmp_path / "maps", few).metrics


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL_PICTURES)
def test_published_pipeline_on_all_pictures(name, released, duts_te):
    scores = evaluate(released(name), duts_te, protocols=["salmetric"]).metrics["salmetric"]
    max_f, mae = ALL_PICTURES[name]
    assert scores["max_f_dataset"] == pytest.approx(max_f, abs=5e-4)
    assert scores["mae"] == pytest.approx(mae, abs=5e-4)
