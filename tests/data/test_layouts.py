"""Every layout that saliency data sets come in, and what is said when one is not whole."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmwp_models.data import find_images, find_pairs
from lmwp_models.errors import UserError

Touch = Callable[..., Path]

LAYOUTS = {
    "X-Image + X-Mask": ("DUTS-TR-Image", "DUTS-TR-Mask"),
    "nested X/X": ("DUTS-TR/DUTS-TR-Image", "DUTS-TR/DUTS-TR-Mask"),
    "nested twice": ("DUTS-TE/DUTS-TE/DUTS-TE-Image", "DUTS-TE/DUTS-TE/DUTS-TE-Mask"),
    "nested folders of files": ("X-Image/X-Image", "X-Mask/X-Mask"),
    "images + ground_truth_mask": ("images", "ground_truth_mask"),
    "images + GT": ("images", "GT"),
    "images + masks": ("images", "masks"),
    "image + mask": ("image", "mask"),
    "Image + Mask": ("Image", "Mask"),
    "imgs + gt": ("imgs", "gt"),
    "HKU-IS": ("HKU-IS/imgs", "HKU-IS/gt"),
    "DUT-OMRON": ("DUT-OMRON-image", "pixelwiseGT-new-PNG"),
    "DUT-OMRON nested": ("DUT-OMRON-image/DUT-OMRON-image", "pixelwiseGT-new-PNG"),
    "SOD": ("Images", "GroundTruth"),
    "camel case": ("TrainImages", "TrainMasks"),
    "Imgs mixed": ("MSRA10K/Imgs", "MSRA10K/Imgs"),
    "flat mixed": (".", "."),
}


@pytest.mark.parametrize(("images", "masks"), LAYOUTS.values(), ids=LAYOUTS.keys())
def test_layout(touch: Touch, images: str, masks: str) -> None:
    root = touch(
        *(f"{images}/{stem}.jpg" for stem in ("b", "a", "C")),
        *(f"{masks}/{stem}.png" for stem in ("c", "b", "a")),
    )
    pairs = find_pairs(root)
    assert [pair.name for pair in pairs] == ["a", "b", "C"]
    assert [pair.image.relative_to(root / images).name for pair in pairs] == [
        "a.jpg",
        "b.jpg",
        "C.jpg",
    ]
    assert [pair.mask.relative_to(root / masks).name for pair in pairs] == [
        "a.png",
        "b.png",
        "c.png",
    ]


def test_images_of_several_kinds_beside_masks(touch: Touch) -> None:
    root = touch("imgs/a.jpg", "imgs/b.png", "imgs/c.WEBP", "gt/a.bmp", "gt/b.png", "gt/c.PNG")
    assert [pair.image.name for pair in find_pairs(root)] == ["a.jpg", "b.png", "c.WEBP"]


def test_stray_files_are_ignored(touch: Touch) -> None:
    root = touch(
        *("images/a.jpg", "images/Thumbs.db", "images/.DS_Store", "images/._a.jpg"),
        *("images/.ipynb_checkpoints/a-checkpoint.jpg", "images/notes.txt"),
        *("masks/a.png", "masks/._a.png", "masks/thumbs.db"),
        *(".ipynb_checkpoints/x.jpg", "__MACOSX/images/._a.jpg", "__MACOSX/masks/._a.png"),
    )
    assert [pair.name for pair in find_pairs(root)] == ["a"]


def test_stems_with_dots_and_blanks(touch: Touch) -> None:
    root = touch("images/a.b (1).jpg", "masks/a.b (1).png", "images/a.jpg", "masks/a.png")
    assert [pair.name for pair in find_pairs(root)] == ["a", "a.b (1)"]


def test_exact_case_wins(touch: Touch) -> None:
    root = touch("images/A.jpg", "images/a.jpg", "masks/a.png", "masks/A.png")
    assert all(pair.image.stem == pair.mask.stem for pair in find_pairs(root))


def test_folders_beside_the_pair_do_not_confuse(touch: Touch) -> None:
    root = touch("X-Image/a.jpg", "X-Mask/a.png", "X-Mask-edge/a.png", "depth/a.png")
    assert find_pairs(root)[0].mask == root / "X-Mask/a.png"


def test_missing_masks_are_counted_and_named(touch: Touch) -> None:
    root = touch("images/keep.jpg", "masks/keep.png", *(f"images/{i}.jpg" for i in range(7)))
    with pytest.raises(UserError, match=r"7 without a partner, no mask .*: 0\.jpg, 1\.jpg, .*\.\."):
        find_pairs(root)
    skipped: list[str] = []
    assert [pair.name for pair in find_pairs(root, on_skip=skipped.append)] == ["keep"]
    assert len(skipped) == 7
    assert "0.jpg" in skipped[0]


def test_missing_images_are_counted_and_named(touch: Touch) -> None:
    root = touch("images/a.jpg", "masks/a.png", "masks/lost.png")
    with pytest.raises(UserError, match=r"1 without a partner, no image .*: lost\.png"):
        find_pairs(root)


def test_twins_are_refused(touch: Touch) -> None:
    root = touch("images/a.jpg", "images/a.bmp", "masks/a.png")
    with pytest.raises(UserError, match=r"both a\.bmp and a\.jpg"):
        find_pairs(root)


@pytest.mark.parametrize(
    "folders",
    [
        ("train/image", "train/mask", "test/image", "test/mask"),
        ("DUTS-TR-Image", "DUTS-TR-Mask", "DUTS-TE-Image", "DUTS-TE-Mask"),
        ("images", "masks", "gt"),
    ],
)
def test_several_data_sets_are_not_guessed_among(touch: Touch, folders: tuple[str, ...]) -> None:
    root = touch(*(f"{folder}/a.png" for folder in folders))
    with pytest.raises(UserError, match=r"holds 2 data sets .*name one of them"):
        find_pairs(root)


def test_one_half_of_a_split_folder(touch: Touch) -> None:
    root = touch("train/image/a.jpg", "train/mask/a.png", "test/image/b.jpg", "test/mask/b.png")
    assert [pair.name for pair in find_pairs(root / "test")] == ["b"]


def test_nothing_recognisable_says_what_was_looked_for_and_found(touch: Touch) -> None:
    root = touch("pics/a.jpg", "readme.txt")
    with pytest.raises(UserError) as caught:
        find_pairs(root)
    assert "images + masks" in str(caught.value)
    assert "found 1 file(s) and folders pics" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_such_folder(touch: Touch) -> None:
    root = touch("file.txt")
    with pytest.raises(UserError, match="not found"):
        find_pairs(root / "none")
    with pytest.raises(UserError, match="not a folder"):
        find_pairs(root / "file.txt")


def test_empty_folders(touch: Touch) -> None:
    root = touch("images/a.txt", "masks/a.png")
    with pytest.raises(UserError, match="no images in"):
        find_pairs(root)


# Lists


@pytest.fixture
def listed(touch: Touch) -> Path:
    return touch(*(f"image/{s}.webp" for s in "abcd"), *(f"mask/{s}.png" for s in "abcd"))


@pytest.mark.parametrize(
    "text",
    [
        "c\na\n",
        "c.webp\na.webp",
        "image/c.jpg\n/image/a.jpg",
        "# chosen\r\nC\r\n\r\na\r\na\r\n",
        "image/c.webp mask/c.png\nimage/a.webp mask/a.png",
        "/image/c.jpg\t/mask/c.png\n/image/a.jpg\t/mask/a.png",
        "image/c.webp,mask/c.png\nimage/a.webp,mask/a.png",
        "image\\c.webp mask\\c.png\nimage\\a.webp mask\\a.png",
        "\ufeffc\na",
    ],
)
@pytest.mark.parametrize("own", [True, False])
def test_lists(listed: Path, text: str, own: bool) -> None:
    path = listed / ("train.txt" if own else "chosen.list")
    path.write_text(text, encoding="utf-8")
    pairs = find_pairs(listed, None if own else path)
    assert [pair.name for pair in pairs] == ["a", "c"]
    assert [pair.mask.name for pair in pairs] == ["a.png", "c.png"]
    assert [pair.image.name for pair in pairs] == ["a.webp", "c.webp"]


def test_list_beside_a_nested_layout(touch: Touch) -> None:
    root = touch("set/image/a.jpg", "set/image/b.jpg", "set/mask/a.png", "set/mask/b.png")
    (root / "set" / "test.lst").write_text("b")
    assert [pair.name for pair in find_pairs(root)] == ["b"]


def test_flat_folder_with_a_pair_list(touch: Touch) -> None:
    root = touch("a 1.jpg", "a 1_gt.jpg", "b.jpg", "b_gt.jpg")
    (root / "train_pair.lst").write_text("a 1.jpg a 1_gt.jpg\nb.jpg b_gt.jpg\n")
    pairs = find_pairs(root)
    assert [(p.image.name, p.mask.name) for p in pairs] == [
        ("a 1.jpg", "a 1_gt.jpg"),
        ("b.jpg", "b_gt.jpg"),
    ]


def test_pair_list_with_equal_stems_in_several_folders(touch: Touch) -> None:
    root = touch("x/1.jpg", "x/1.png", "y/1.jpg", "y/1.png")
    (root / "pairs").write_text("x/1.jpg x/1.png\ny/1.jpg y/1.png")
    pairs = find_pairs(root, "pairs")
    assert len({pair.name for pair in pairs}) == 2
    assert [pair.mask for pair in pairs] == [root / "x/1.png", root / "y/1.png"]


@pytest.mark.parametrize(
    "text", ["a\nzz\nyy", "image/a.webp mask/a.png\nzz.jpg zz.png\nyy.jpg q.png"]
)
def test_names_of_a_list_that_are_not_there(listed: Path, text: str) -> None:
    (listed / "l").write_text(text)
    with pytest.raises(UserError, match=r"2 without a partner, no such .*zz"):
        find_pairs(listed, "l")
    skipped: list[str] = []
    assert [pair.name for pair in find_pairs(listed, "l", on_skip=skipped.append)] == ["a"]
    assert len(skipped) == 2


def test_bad_lists(listed: Path) -> None:
    (listed / "empty").write_text("\n# nothing\n")
    (listed / "binary").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(UserError, match="no names"):
        find_pairs(listed, "empty")
    with pytest.raises(UserError, match="not a readable text file"):
        find_pairs(listed, "binary")
    with pytest.raises(UserError, match="not found"):
        find_pairs(listed, "none.txt")
    (listed / "train.txt").write_text("a")
    (listed / "test.txt").write_text("b")
    with pytest.raises(UserError, match=r"several lists \(test\.txt, train\.txt\)"):
        find_pairs(listed)
    assert [pair.name for pair in find_pairs(listed, "test.txt")] == ["b"]


# Images alone


def test_find_images(touch: Touch) -> None:
    root = touch("b.jpg", "A.PNG", "c.webp", "x.txt", ".hidden.jpg", "sub/d.jpg")
    assert [path.name for path in find_images(root)] == ["A.PNG", "b.jpg", "c.webp"]
    assert find_images(root / "b.jpg") == [root / "b.jpg"]


def test_find_images_of_a_data_set(touch: Touch) -> None:
    root = touch("set/X-Image/X-Image/a.jpg", "set/X-Mask/a.png", "mixed/a.jpg", "mixed/a.png")
    assert [path.name for path in find_images(root / "set")] == ["a.jpg"]
    assert [path.name for path in find_images(root / "mixed")] == ["a.jpg"]


def test_find_images_finds_none(touch: Touch) -> None:
    root = touch("notes.txt", "deep/er/a.jpg")
    with pytest.raises(UserError, match="no pictures"):
        find_images(root)
    with pytest.raises(UserError, match="not found"):
        find_images(root / "none")


# Any names

stems = st.text("abXYé01_-. (", min_size=1, max_size=6).filter(lambda s: s[0] != "." and s.strip())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(stems, min_size=1, max_size=8, unique_by=str.casefold),
    st.data(),
)
def test_any_stems_pair_up(names: list[str], data: st.DataObject) -> None:
    """Against the plain rule: one mask per image whose stem is equal but for case."""
    with_mask = data.draw(st.lists(st.booleans(), min_size=len(names), max_size=len(names)))
    swap = data.draw(st.lists(st.booleans(), min_size=len(names), max_size=len(names)))
    with_mask[0] = True
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "imgs").mkdir()
        (root / "gt").mkdir()
        want = {}
        for name, mask, swapped in zip(names, with_mask, swap, strict=True):
            (root / "imgs" / f"{name}.jpg").touch()
            if mask:
                want[name] = f"{name.swapcase() if swapped else name}.png"
                (root / "gt" / want[name]).touch()
        skipped: list[str] = []
        pairs = find_pairs(root, on_skip=skipped.append)
        assert {pair.name: pair.mask.name for pair in pairs} == want
        assert len(skipped) == with_mask.count(False)
        assert [p.name for p in pairs] == sorted(want, key=lambda n: (n.casefold(), n))
        if skipped:
            with pytest.raises(UserError, match=f"{len(skipped)} without a partner"):
                find_pairs(root)
