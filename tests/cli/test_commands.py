"""eval, predict and import-csnet from the command line, on real files."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from lmwp_models.cli import main
from lmwp_models.data import write_synthetic
from lmwp_models.registry import create_model
from lmwp_models.weights import load_model, save_model


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A CSNet whose batch statistics have seen one batch: fresh ones overflow."""
    torch.manual_seed(0)
    model = create_model("csnet-l-x1")
    with torch.no_grad():
        for _ in range(60):
            model(torch.randn(2, 3, 32, 32))
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    save_model(model, path, name="csnet-l-x1", input_size=(32, 32))
    return str(path)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_synthetic(tmp_path_factory.mktemp("data") / "set", 5, (48, 64), seed=2)


def test_eval_prints_both_protocols_as_json(capsys, weights, pictures):
    assert main(["eval", "--weights", weights, "--data", str(pictures), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["pictures"] == 5
    assert {"max_f_dataset", "mae"} <= report["salmetric"].keys()
    assert {"max_f_image", "s_measure", "weighted_f"} <= report["pysod"].keys()


def test_scores_of_written_maps_equal_those_of_the_network(capsys, weights, pictures, tmp_path):
    """predict writes exactly what eval scores."""
    images = str(pictures / "images")
    assert main(["predict", images, "--weights", weights, "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    reports = []
    for source in (["--weights", weights], ["--maps", str(tmp_path)]):
        assert main(["eval", *source, "--data", str(pictures), "--json"]) == 0
        reports.append(json.loads(capsys.readouterr().out))
    assert reports[0] == reports[1]


def test_eval_prints_one_table_a_protocol(capsys, weights, pictures):
    argv = ["eval", "--weights", weights, "--data", str(pictures), "--protocol", "salmetric"]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "salmetric, 5 pictures" in out
    assert "pysod" not in out


def test_skip_bad_names_what_it_skipped(capsys, weights, pictures, tmp_path):
    copy = write_synthetic(tmp_path / "set", 4, (48, 64), seed=2)
    broken = sorted((copy / "images").iterdir())[1]
    broken.write_bytes(broken.read_bytes()[:200])
    argv = ["eval", "--weights", weights, "--data", str(copy), "--json"]
    assert main(argv) == 2
    assert broken.name in capsys.readouterr().err
    assert main([*argv, "--skip-bad"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["pictures"] == 3
    assert f"skipped: cannot read {broken}" in captured.err


def test_predict_does_the_rest_of_a_folder_with_a_broken_file(capsys, weights, tmp_path):
    folder = write_synthetic(tmp_path / "set", 3, (40, 56), seed=3) / "images"
    (folder / "broken.jpg").write_bytes(b"not a picture")
    out = tmp_path / "maps"
    argv = ["predict", str(folder), "--weights", weights, "--out", str(out), "--overlay"]
    assert main(argv) == 1
    captured = capsys.readouterr()
    assert "3 written" in captured.out
    assert "1 failed" in captured.out
    assert "broken.jpg" in captured.err
    maps = sorted(out.glob("*.png"))
    assert len(maps) == 6
    shapes = {np.asarray(Image.open(path)).shape for path in maps if "overlay" not in path.name}
    assert shapes == {(40, 56)}


@pytest.mark.parametrize(("size", "status"), [("48", 0), ("32x64", 0), ("native", 0), ("33", 2)])
def test_predict_at_another_size(capsys, weights, pictures, tmp_path, size, status):
    image = str(sorted((pictures / "images").iterdir())[0])
    argv = ["predict", image, "--weights", weights, "--out", str(tmp_path), "--size", size]
    assert main(argv) == status
    assert len(list(tmp_path.glob("*.png"))) == (status == 0)


@pytest.mark.parametrize("name", ["x1", "x2"])
def test_import_csnet(capsys, reference_dir, tmp_path, name):
    golden = reference_dir / "golden" / f"csnet-L-{name}"
    out = tmp_path / "net.safetensors"
    argv = ["import-csnet", f"{golden}.pth.tar", f"{golden}.bin", "--out", str(out)]
    assert main(argv) == 0
    model, metadata = load_model(out)
    assert metadata["model"] == f"csnet-l-{name}"
    params = sum(parameter.numel() for parameter in model.parameters())
    assert f"{params:,}" in capsys.readouterr().out
    assert main(argv) == 2
    assert "exists" in capsys.readouterr().err
