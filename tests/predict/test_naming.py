from pathlib import PurePosixPath

from hypothesis import given, settings
from hypothesis import strategies as st

from lmwp_models.predict.naming import map_names, panel_name


def named(*images):
    return [str(name) for name in map_names([PurePosixPath(image) for image in images])]


def test_a_map_is_named_after_its_image():
    assert named("a.jpg", "b/a.PNG", "v1.5.webp") == ["a.png", "b/a.png", "v1.5.png"]


def test_images_of_one_stem_keep_their_extensions():
    assert named("a.jpg", "a.png", "b.jpg") == ["a.jpg.png", "a.png.png", "b.png"]
    assert named("x/a.jpg", "x/A.png") == ["x/a.jpg.png", "x/A.png.png"]


def test_names_do_not_depend_on_the_order():
    images = ["a.jpg", "a.png", "b.bmp"]
    assert sorted(named(*images)) == sorted(named(*reversed(images)))


def test_clashes_of_the_longer_names_are_numbered():
    names = named("a.jpg", "a.png", "a.jpg.gif", "a.jpg.bmp")
    assert names == ["a.jpg.png", "a.png.png", "a.jpg.gif.png", "a.jpg.bmp.png"]
    assert named("a.jpg.gif", "a.jpg", "a.webp") == ["a.jpg.png", "a.jpg-2.png", "a.webp.png"]


def test_panel_name():
    assert panel_name(PurePosixPath("x/v1.5.png")) == PurePosixPath("x/v1.5.overlay.png")


parts = st.sampled_from(["a", "A", "a.jpg", "a.png", "a.overlay", "b"])
paths = st.builds(
    lambda stem, kind: PurePosixPath(stem + kind),
    parts,
    st.sampled_from([".jpg", ".JPG", ".png", ".webp"]),
)


@given(st.lists(paths, unique=True, max_size=12))
@settings(max_examples=150, deadline=None)
def test_no_two_files_share_a_name(images):
    names = map_names(images)
    written = [*names, *map(panel_name, names)]
    assert len({str(name).casefold() for name in written}) == 2 * len(images)
    assert all(name.suffix == ".png" for name in names)
