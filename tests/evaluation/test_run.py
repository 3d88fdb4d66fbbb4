import json

import numpy as np
import pytest
from PIL import Image

from lmwp_models.data.sources import Sample
from lmwp_models.errors import UserError
from lmwp_models.evaluation import Evaluator, evaluate, evaluate_maps


def brightness(image):
    return image.mean(axis=2).astype(np.uint8)


def write_maps(folder, source, name="{}.png"):
    for sample in source.samples:
        path = folder / name.format(sample.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(brightness(sample.image)).save(path)


@pytest.fixture
def maps(tmp_path, pictures):
    write_maps(tmp_path, pictures)
    return tmp_path


def test_evaluate_equals_updates_by_hand(pictures):
    by_hand = Evaluator()
    for sample in pictures.samples:
        by_hand.update(brightness(sample.image), sample.mask)
    result = evaluate(brightness, pictures)
    assert result.count == 8
    assert result.metrics == by_hand.compute()
    assert result.curves["pysod"]["f"] == pytest.approx(by_hand.curves()["pysod"]["f"])
    assert result.images == []


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_the_number_of_workers_changes_nothing(pictures, maps, workers):
    expected = evaluate(brightness, pictures, workers=0)
    calls = []
    for result in (
        evaluate(brightness, pictures, workers=workers, on_progress=lambda *c: calls.append(c)),
        evaluate_maps(maps, pictures, workers=workers, on_progress=lambda *c: calls.append(c)),
    ):
        assert result.metrics == expected.metrics
    assert calls == [(done, 8) for done in range(1, 9)] * 2


def test_scores_of_single_images_in_order(pictures):
    result = evaluate(brightness, pictures, per_image=True, workers=3)
    assert [row.name for row in result.images] == pictures.names
    alone = Evaluator()
    alone.update(brightness(pictures[4].image), pictures[4].mask)
    assert result.images[4].scores == alone.compute()
    worst = min(result.images, key=lambda row: row.scores["pysod"]["s_measure"])
    assert worst.scores["pysod"]["s_measure"] < result.metrics["pysod"]["s_measure"]


def test_one_protocol_and_json(pictures):
    result = evaluate(brightness, pictures, protocols=["salmetric"])
    plain = json.loads(json.dumps(result.to_dict()))
    assert plain.keys() == {"n", "salmetric"}
    assert plain["salmetric"] == result.metrics["salmetric"]


def test_an_empty_source_is_an_error(make_source):
    with pytest.raises(UserError, match="nothing to evaluate"):
        evaluate(brightness, make_source([]))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_map_of_the_wrong_size_names_its_image(pictures, workers):
    with pytest.raises(ValueError, match="picture-0: prediction"):
        evaluate(lambda image: brightness(image)[1:], pictures, workers=workers)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_the_network_comes_through(pictures, workers):
    def fail(image):
        raise UserError("not finite")

    with pytest.raises(UserError, match="not finite"):
        evaluate(fail, pictures, workers=workers)


def test_maps_are_found_by_stem_case_and_folder(tmp_path, pictures):
    expected = evaluate(brightness, pictures).metrics
    write_maps(tmp_path / "upper", pictures, "{}.PNG")
    write_maps(tmp_path / "nested", pictures, "DUTS-TE-Image/{}.png")
    for folder in ("upper", "nested"):
        result = evaluate_maps(tmp_path / folder, pictures)
        assert result.metrics == expected
        assert result.resized == 0


def test_the_whole_name_goes_before_its_last_part(tmp_path, make_source, pictures):
    one, two = pictures.samples[:2]
    source = make_source([one._replace(name="a/x"), two._replace(name="b/X")])
    write_maps(tmp_path, source)
    assert evaluate_maps(tmp_path, source).metrics == evaluate(brightness, source).metrics


def test_missing_maps_are_counted_and_named(maps, pictures):
    (maps / "picture-2.png").unlink()
    (maps / "picture-5.png").unlink()
    with pytest.raises(UserError, match=r"2 of 8 .*picture-2\.png, picture-5\.png$"):
        evaluate_maps(maps, pictures)


def test_many_missing_maps_stay_one_short_line(tmp_path, pictures):
    with pytest.raises(UserError, match=r"8 of 8 maps are missing: .*picture-4\.png, \.\.\.$"):
        evaluate_maps(tmp_path, pictures)


def test_a_missing_folder(tmp_path, pictures):
    with pytest.raises(UserError, match="expected a folder"):
        evaluate_maps(tmp_path / "nowhere", pictures)


def test_two_maps_for_one_image(tmp_path, pictures):
    write_maps(tmp_path, pictures, "one/{}.png")
    write_maps(tmp_path, pictures, "two/{}.png")
    with pytest.raises(UserError, match="could be the map of 'picture-0'"):
        evaluate_maps(tmp_path, pictures)


def test_a_broken_map_is_named(maps, pictures):
    (maps / "picture-3.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(UserError, match=r"picture-3\.png"):
        evaluate_maps(maps, pictures)


def test_a_map_in_colour_is_refused(maps, pictures):
    Image.new("RGB", (4, 4), (200, 10, 10)).save(maps / "picture-3.png")
    with pytest.raises(UserError, match=r"picture-3\.png: expected a grey saliency map"):
        evaluate_maps(maps, pictures)


def test_levels_of_a_faint_map_are_kept(tmp_path, make_source):
    """A map of levels 0 and 1 is not a label map."""
    saliency = np.uint8([[0, 1], [1, 0]])
    Image.fromarray(saliency).save(tmp_path / "a.png")
    source = make_source([Sample("a", np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint8))])
    assert evaluate_maps(tmp_path, source).metrics["salmetric"]["mae"] == 0.5 / 255


def test_grey_maps_stored_in_other_modes(maps, pictures):
    expected = evaluate(brightness, pictures).metrics
    levels = np.asarray(Image.open(maps / "picture-1.png"))
    Image.fromarray(levels.astype(np.uint16) * 257).save(maps / "picture-1.png")
    with Image.open(maps / "picture-2.png") as saliency:
        saliency.convert("RGB").save(maps / "picture-2.png")
    assert evaluate_maps(maps, pictures).metrics == expected


def test_maps_of_another_size_are_resized_and_counted(tmp_path, make_source):
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 20:50] = 255
    source = make_source([Sample("a", np.zeros((40, 60, 3), np.uint8), mask)])
    small = np.kron(mask[::20, ::20], np.ones((10, 10), np.uint8))
    Image.fromarray(small).save(tmp_path / "a.png")
    result = evaluate_maps(tmp_path, source)
    assert result.resized == 1
    # Pixel centres, not corners, are aligned: a 2x enlargement weighs neighbours 3 to 1.
    rows = np.clip((np.arange(40) + 0.5) / 2 - 0.5, 0, 19)
    columns = np.clip((np.arange(60) + 0.5) / 2 - 0.5, 0, 29)
    along = np.array([np.interp(rows, np.arange(20), column) for column in small.T.astype(float)])
    expected = np.array([np.interp(columns, np.arange(30), row) for row in along.T])
    by_hand = Evaluator()
    by_hand.update(np.rint(expected).astype(np.uint8), mask)
    assert result.metrics["salmetric"]["mae"] == pytest.approx(
        by_hand.compute()["salmetric"]["mae"], abs=1e-4
    )
