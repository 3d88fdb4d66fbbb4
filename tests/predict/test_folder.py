import numpy as np
import pytest
from PIL import Image

from lmwp_models.errors import UserError
from lmwp_models.predict import Predictor, predict_folder

WIDTH, HEIGHT = 33, 21


@pytest.fixture
def predictor(make_network):
    return Predictor(make_network(gain=2.0), (32, 32))


@pytest.fixture
def save(tmp_path, photograph):
    """Writes a photograph below `images/` and returns that folder."""

    def save(name, mode="RGB", seed=0, **options):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(photograph(HEIGHT, WIDTH, seed))
        picture.convert(mode).save(path, **options)
        return tmp_path / "images"

    return save


def maps_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


def saliency(path):
    with Image.open(path) as picture:
        assert picture.mode == "L"
        return np.asarray(picture)


MODES = {
    "rgb.jpg": "RGB",
    "grey.jpg": "L",
    "cmyk.jpg": "CMYK",
    "rgb.png": "RGB",
    "alpha.png": "RGBA",
    "grey-alpha.png": "LA",
    "palette.png": "P",
    "bilevel.png": "1",
    "sixteen.png": "I;16",
    "photo.webp": "RGB",
    "photo.bmp": "RGB",
    "photo.tif": "RGB",
}


def test_files_of_every_kind(predictor, save, tmp_path):
    for i, (name, mode) in enumerate(MODES.items()):
        folder = save(f"{i:02}-{name}", mode)
    result = predict_folder(predictor, folder, tmp_path / "out")
    assert result.failed == []
    assert [path.name for path in result.written] == [
        f"{i:02}-{name.split('.')[0]}.png" for i, name in enumerate(MODES)
    ]
    assert maps_below(tmp_path / "out") == [path.name for path in result.written]
    for path in result.written:
        assert saliency(path).shape == (HEIGHT, WIDTH)
    lossless = saliency(tmp_path / "out" / "03-rgb.png")
    np.testing.assert_array_equal(lossless, saliency(tmp_path / "out" / "10-photo.png"))


def test_the_map_is_that_of_the_predictor(predictor, save, tmp_path, photograph):
    predict_folder(predictor, save("a.png"), tmp_path / "out")
    expected = predictor(photograph(HEIGHT, WIDTH))
    np.testing.assert_array_equal(saliency(tmp_path / "out" / "a.png"), expected)


def test_the_map_of_a_turned_photograph_stands_upright(predictor, save, tmp_path, photograph):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by 90 degrees to show
    predict_folder(predictor, save("a.png", exif=exif), tmp_path / "out")
    upright = np.ascontiguousarray(np.rot90(photograph(HEIGHT, WIDTH), -1))
    result = saliency(tmp_path / "out" / "a.png")
    assert result.shape == (WIDTH, HEIGHT)
    np.testing.assert_array_equal(result, predictor(upright))


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_broken_files_are_reported_and_the_rest_is_done(predictor, save, tmp_path, batch_size):
    for name in ("a.jpg", "c.jpg", "e.png"):
        folder = save(name, seed=ord(name[0]))
    (folder / "b.jpg").write_bytes((folder / "a.jpg").read_bytes()[:200])
    (folder / "d.png").write_text("no picture")
    (folder / "f.png").touch()
    calls = []
    result = predict_folder(
        predictor,
        folder,
        tmp_path / "out",
        batch_size=batch_size,
        on_progress=lambda *call: calls.append(call),
    )
    assert [path.name for path in result.written] == ["a.png", "c.png", "e.png"]
    assert maps_below(tmp_path / "out") == ["a.png", "c.png", "e.png"]
    assert [failure.path.name for failure in result.failed] == ["b.jpg", "d.png", "f.png"]
    for path, reason in result.failed:
        assert str(path) in reason
        assert "\n" not in reason
    assert calls == [(min(done, 6), 6) for done in range(batch_size, 6 + batch_size, batch_size)]
    with Image.open(folder / "c.jpg") as picture:
        expected = predictor(np.asarray(picture))
    np.testing.assert_array_equal(saliency(tmp_path / "out" / "c.png"), expected)


def test_a_single_image(predictor, save, tmp_path):
    folder = save("a.jpg")
    save("b.jpg")
    result = predict_folder(predictor, folder / "a.jpg", tmp_path / "deep" / "out")
    assert result.written == [tmp_path / "deep" / "out" / "a.png"]


def test_subfolders_keep_their_layout(predictor, save, tmp_path):
    for name in ("top.jpg", "one/a.jpg", "one/two/a.jpg", "three/a.jpg"):
        folder = save(name)
    save(".hidden/a.jpg")
    (folder / "Thumbs.db").touch()
    (folder / "notes.txt").touch()
    (folder / "one" / "up").symlink_to(folder)
    predict_folder(predictor, folder, tmp_path / "out")
    assert maps_below(tmp_path / "out") == ["one/a.png", "one/two/a.png", "three/a.png", "top.png"]


def test_masks_of_a_data_set_are_not_predicted(predictor, save, tmp_path):
    for stem in ("a", "b"):
        save(f"sets/X-Image/{stem}.jpg")
        folder = save(f"sets/X-Mask/{stem}.png", "1")
    save("holiday.jpg")
    predict_folder(predictor, folder / "sets", tmp_path / "set")
    assert maps_below(tmp_path / "set") == ["a.png", "b.png"]
    predict_folder(predictor, folder, tmp_path / "all")
    assert maps_below(tmp_path / "all") == [
        "holiday.png",
        "sets/X-Image/a.png",
        "sets/X-Image/b.png",
    ]


def test_images_of_one_stem_do_not_replace_each_other(predictor, save, tmp_path):
    save("a.jpg", seed=1)
    folder = save("a.png", seed=2)
    predict_folder(predictor, folder, tmp_path / "out")
    assert maps_below(tmp_path / "out") == ["a.jpg.png", "a.png.png"]
    first, second = (saliency(tmp_path / "out" / f"a.{kind}.png") for kind in ("jpg", "png"))
    assert not np.array_equal(first, second)


def test_overlay_panels(predictor, save, tmp_path, photograph):
    result = predict_folder(predictor, save("a.png"), tmp_path / "out", overlay=True)
    assert maps_below(tmp_path / "out") == ["a.overlay.png", "a.png"]
    assert [path.name for path in result.written] == ["a.png"]
    panel = np.asarray(Image.open(tmp_path / "out" / "a.overlay.png"))
    image, grey = photograph(HEIGHT, WIDTH), saliency(tmp_path / "out" / "a.png")
    assert panel.shape[0] == HEIGHT
    np.testing.assert_array_equal(panel[:, :WIDTH], image)
    gap = (panel.shape[1] - 3 * WIDTH) // 2
    middle = panel[:, WIDTH + gap : 2 * WIDTH + gap]
    np.testing.assert_array_equal(middle, np.repeat(grey[:, :, None], 3, axis=2))
    redder = panel[:, -WIDTH:].astype(int) - image
    assert redder[grey > 200][:, 0].mean() > 10
    assert np.abs(redder[grey < 2]).max(initial=0) <= 2


def test_existing_maps_are_refused_before_anything_is_done(predictor, save, tmp_path):
    save("a.jpg")
    folder = save("b.jpg")
    out = tmp_path / "out"
    out.mkdir()
    (out / "b.png").write_text("mine")
    with pytest.raises(UserError, match=r"1 of 2 files exist already, such as .*b\.png"):
        predict_folder(predictor, folder, out)
    assert maps_below(out) == ["b.png"]
    assert (out / "b.png").read_text() == "mine"
    predict_folder(predictor, folder, out, overwrite=True)
    assert saliency(out / "b.png").shape == (HEIGHT, WIDTH)


def test_an_existing_panel_is_refused_too(predictor, save, tmp_path):
    folder = save("a.jpg")
    (tmp_path / "a.overlay.png").touch()
    with pytest.raises(UserError, match=r"1 of 2 files exist already"):
        predict_folder(predictor, folder, tmp_path, overlay=True)


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_image_is_never_replaced_by_its_map(predictor, save, overwrite):
    folder = save("a.png")
    before = (folder / "a.png").read_bytes()
    with pytest.raises(UserError, match="give another"):
        predict_folder(predictor, folder / "a.png", folder, overwrite=overwrite)
    with pytest.raises(UserError, match="give another"):
        predict_folder(predictor, folder, folder / ".." / "images", overwrite=overwrite)
    assert (folder / "a.png").read_bytes() == before


def test_maps_inside_the_input_folder_are_no_input(predictor, save):
    folder = save("a.jpg")
    for _ in range(2):
        result = predict_folder(predictor, folder, folder / "maps", overwrite=True)
        assert len(result.written) == 1
    assert maps_below(folder) == ["a.jpg", "maps/a.png"]


def test_maps_above_the_input_folder(predictor, save, tmp_path):
    folder = save("a.jpg")
    result = predict_folder(predictor, folder, tmp_path)
    assert result.written == [tmp_path / "a.png"]


def test_an_out_folder_that_cannot_be_made(predictor, save, tmp_path):
    folder = save("a.jpg")
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write .*out.*a\.png: "):
        predict_folder(predictor, folder, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "a file"


def test_a_full_disk_stops_with_one_line(predictor, save, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    folder = save("a.jpg")
    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(UserError, match=r"cannot write .*a\.png: No space left on device"):
        predict_folder(predictor, folder, tmp_path / "out")
    assert not (tmp_path / "out" / "a.png").exists()


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_nothing_to_predict(predictor, tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=name):
        predict_folder(predictor, tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_that_are_not_finite_stop_the_run(make_network, save, tmp_path):
    predictor = Predictor(make_network(gain=float("nan")))
    with pytest.raises(UserError, match="not finite"):
        predict_folder(predictor, save("a.jpg"), tmp_path / "out")
