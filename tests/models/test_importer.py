"""Import of the authors' file formats, with files made here; hostile ones must do nothing."""

import io
import json
import os
import pickle

import numpy as np
import pytest
import safetensors.torch
import torch

from lmwp_models.errors import UserError
from lmwp_models.importer import import_csnet, read_config, read_weights
from lmwp_models.plain_pickle import RefusedPickleError, load_plain
from lmwp_models.registry import create_model, model_info
from lmwp_models.weights import load_model


def channel_list(config):
    """The authors' layout: inputs and outputs of every block, the head, the stage lengths."""
    ins = [(3,), *config.blocks]
    head = config.head
    ends = [config.blocks[k][0] for k in config.head_inputs]
    return [
        *([list(i), list(o)] for i, o in zip(ins, config.blocks, strict=False)),
        [ends, list(head.fuse)],
        [list(head.fuse), list(head.ms_widths), [list(row) for row in head.ms]],
        [list(head.ms_widths), [head.fuse1x1]],
        list(config.stages),
    ]


def as_arrays(entries):
    """The same with numpy arrays of floats for the lists of numbers and a bare 3, as theirs."""

    def convert(value):
        if isinstance(value, list) and value and isinstance(value[0], list):
            return [convert(item) for item in value]
        return np.array(value, dtype=np.float64)

    blocks = [convert(entry) for entry in entries[:-1]]
    blocks[0][0] = 3
    return [*blocks, entries[-1]]


def as_table(entries):
    *blocks, fuse, ms, fuse1x1, stages = entries
    names = ("in_channels", "out_channels", "out_channels_per_dilation")
    return {
        "blocks": [dict(zip(names, block, strict=False)) for block in blocks],
        "head": {
            "fuse": dict(zip(names, fuse, strict=False)),
            "ms": dict(zip(names, ms, strict=True)),
            "fuse1x1": dict(zip(names, fuse1x1, strict=False)),
        },
        "stages": stages,
    }


CONFIG = model_info("csnet-l-x2").config
ENTRIES = channel_list(CONFIG)


@pytest.fixture(scope="module")
def model(fill_by_formula):
    return fill_by_formula(create_model("csnet-l-x2")).eval()


@pytest.fixture(scope="module")
def weight_files(model, tmp_path_factory):
    """The same weights in the formats they come in."""
    folder = tmp_path_factory.mktemp("weights")
    state = model.state_dict()
    checkpoint = {"epoch": 20, "arch": "net", "state_dict": state, "optimizer": {"state": {}}}
    torch.save(checkpoint, folder / "legacy.pth.tar", _use_new_zipfile_serialization=False)
    torch.save(checkpoint, folder / "zip.pth")
    torch.save(state, folder / "bare.pt")
    safetensors.torch.save_file(state, folder / "plain.safetensors")
    return folder


@pytest.fixture(scope="module")
def config_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("configs")
    for protocol in (0, 2, 3, 5):
        data = pickle.dumps(as_arrays(ENTRIES), protocol=protocol)
        (folder / f"arrays{protocol}.bin").write_bytes(data)
    scalars = [[[np.float64(c) for c in part] for part in entry] for entry in ENTRIES[:-2]]
    (folder / "lists.bin").write_bytes(pickle.dumps(ENTRIES))
    scalars[-2] = ENTRIES[-4]
    scalars[-1] = ENTRIES[-3]
    (folder / "scalars.bin").write_bytes(pickle.dumps([*scalars, *ENTRIES[-2:]]))
    (folder / "list.json").write_text(json.dumps(ENTRIES))
    (folder / "table.json").write_text(json.dumps(as_table(ENTRIES)))
    return folder


@pytest.mark.parametrize(
    "name",
    ["arrays0.bin", "arrays2.bin", "arrays3.bin", "arrays5.bin", "lists.bin", "scalars.bin",
     "list.json", "table.json"],
)  # fmt: skip
def test_channels_in_every_format(config_files, name):
    assert read_config(config_files / name) == CONFIG


@pytest.mark.parametrize("name", ["csnet-1-0", "csnet-0-1", "csnet-single"])
def test_channels_with_empty_branches(tmp_path, name):
    config = model_info(name).config
    path = tmp_path / "c.bin"
    path.write_bytes(pickle.dumps(as_arrays(channel_list(config))))
    assert read_config(path) == config


@pytest.mark.parametrize("name", ["legacy.pth.tar", "zip.pth", "bare.pt", "plain.safetensors"])
def test_weights_in_every_format(model, weight_files, config_files, name, tmp_path):
    out = tmp_path / "out.safetensors"
    imported = import_csnet(weight_files / name, config_files / "arrays3.bin", out)
    loaded, metadata = load_model(out)
    assert metadata["model"] == "csnet-l-x2"
    image = torch.randn(1, 3, 16, 16)
    expected = model(image)
    assert expected.isfinite().all()
    assert torch.equal(loaded(image), expected)
    assert torch.equal(imported(image), expected)


def test_unregistered_channels_are_called_csnet(tmp_path, config_files):
    entries = json.loads((config_files / "list.json").read_text())
    entries[-2][1] = [31]
    (tmp_path / "c.json").write_text(json.dumps(entries))
    config = read_config(tmp_path / "c.json")
    model = create_model("csnet-x1", blocks=config.blocks, head=config.head)
    safetensors.torch.save_file(model.state_dict(), tmp_path / "w")
    import_csnet(tmp_path / "w", tmp_path / "c.json", tmp_path / "out")
    assert load_model(tmp_path / "out")[1]["model"] == "csnet"


def test_existing_file_is_kept_unless_forced(weight_files, config_files, tmp_path):
    out = tmp_path / "out.safetensors"
    out.write_text("precious")
    sources = weight_files / "bare.pt", config_files / "lists.bin"
    with pytest.raises(UserError, match=r"exists already; choose another name or pass --force"):
        import_csnet(*sources, out)
    assert out.read_text() == "precious"
    import_csnet(*sources, out, force=True)
    load_model(out)


def test_first_mismatch_is_named(weight_files, tmp_path):
    path = tmp_path / "c.json"
    path.write_text(json.dumps(channel_list(model_info("csnet-l-x1").config)))
    message = r"tensor stage0.0.conv1x1.conv.weight: expected shape \[18, 3, 3, 3\] .* got \[23,"
    with pytest.raises(UserError, match=message):
        import_csnet(weight_files / "bare.pt", path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folder_that_does_not_exist(weight_files, config_files, tmp_path):
    with pytest.raises(UserError, match=r"out cannot be written: No such file"):
        import_csnet(
            weight_files / "bare.pt", config_files / "lists.bin", tmp_path / "nowhere" / "out"
        )


class Bomb:
    """Unpickled the ordinary way, this makes a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


class TestHostileFiles:
    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_bomb_in_channels(self, tmp_path, protocol):
        target = tmp_path / "boom"
        data = pickle.dumps([*ENTRIES[:-1], Bomb(target)], protocol=protocol)
        path = tmp_path / "c.bin"
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"may not name (posix|nt|os)\.mkdir") as caught:
            read_config(path)
        assert "\n" not in str(caught.value)
        assert not target.exists()
        pickle.loads(data)
        assert target.exists()

    @pytest.mark.parametrize("legacy", [False, True])
    def test_bomb_in_weights(self, tmp_path, legacy):
        target = tmp_path / "boom"
        path = tmp_path / "w.pth"
        torch.save({"state_dict": Bomb(target)}, path, _use_new_zipfile_serialization=not legacy)
        with pytest.raises(UserError, match=r"w.pth is refused") as caught:
            read_weights(path)
        assert "\n" not in str(caught.value)
        assert not target.exists()

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (np.array(["a"]), r"expected numbers, got numpy type 'U1'"),
            (
                np.array([object()], dtype=object),
                r"expected numbers, got numpy type 'O8'|may not name",
            ),
            (np.zeros((2, 3), order="F"), r"expected a C-ordered array"),
            (np.zeros(2, dtype=[("a", "f8")]), r"expected numbers, got numpy type 'V8'"),
            ({1, 2}, r"may not name builtins.set|damaged|got set"),
            (1j, r"may not name builtins.complex"),
            (np.ndarray, r"got type"),
            (np.dtype("f8"), r"got _DType"),
        ],
        ids=["text", "objects", "fortran", "record", "set", "complex", "type", "dtype"],
    )
    def test_more_than_numbers(self, value, message):
        with pytest.raises(RefusedPickleError, match=message):
            load_plain(pickle.dumps([value], protocol=3))

    def test_array_that_lies_about_its_size(self):
        data = pickle.dumps(np.zeros(3), protocol=3).replace(b"K\x03\x85", b"K\x09\x85")
        with pytest.raises(RefusedPickleError, match=r"expected 9 numbers, got 3"):
            load_plain(data)

    def test_endless_list(self):
        endless = []
        endless.append(endless)
        with pytest.raises(RefusedPickleError, match="RecursionError"):
            load_plain(pickle.dumps(endless))

    def test_reference_to_outside(self):
        class Pickler(pickle.Pickler):
            def persistent_id(self, obj):
                return "x" if obj == 7 else None

        buffer = io.BytesIO()
        Pickler(buffer).dump([7])
        with pytest.raises(RefusedPickleError, match="may not refer to other data"):
            load_plain(buffer.getvalue())

    @pytest.mark.parametrize("data", [b"", b"\x80", b"abc", b"\x80\x04K\x01", b"\x80\x04)R."])
    def test_damaged_pickle(self, data):
        with pytest.raises(RefusedPickleError, match="damaged pickle"):
            load_plain(data)


def _changed(index, value):
    return [*ENTRIES[:index], value, *ENTRIES[index + 1 :]]


BAD_CHANNELS = [
    (7, r"the file: expected a list, got 7"),
    ([], r"expected blocks, fuse, ms, fuse1x1 and stages, got 0 entries"),
    (ENTRIES[1:], r"block 0: expected inputs \[3\] from the layer before, got \[13, 10\]"),
    (_changed(2, [[9, 9], [18, 11]]), r"block 2: expected inputs \[13, 12\] .* got \[9, 9\]"),
    (_changed(2, [[13, 12], [18.5, 11]]), r"block 2\[0\]: expected a non-negative whole .* 18.5"),
    (_changed(2, [[13, 12]]), r"block 2: expected 2 lists of channels, got 1"),
    (_changed(18, [[51, 38, 63], [17, 38, 32]]), r"fuse: expected inputs \[51, 38, 64\]"),
    (_changed(20, [[8, 24, 18], [40, 39]]), r"fuse1x1: expected one output branch"),
    (_changed(21, [3, 4, 6, 5]), r"blocks: expected 19"),
    (_changed(19, [ENTRIES[19][0], [8, 24, 18], [[1] * 5] * 3]), r"ms: outputs .* are not the"),
    ({"blocks": []}, r"field 'head' is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("entries", "message"), BAD_CHANNELS)
def test_bad_channels_are_named(entries, message, tmp_path):
    path = tmp_path / "c"
    writer = json.dumps(entries).encode() if entries != 7 else pickle.dumps(entries)
    path.write_bytes(writer)
    with pytest.raises(UserError, match=r"c holds no CSNet channels: " + message) as caught:
        read_config(path)
    assert "\n" not in str(caught.value)


def test_broken_json_and_missing_files(tmp_path):
    (tmp_path / "c.json").write_text("{")
    with pytest.raises(UserError, match="holds no CSNet channels"):
        read_config(tmp_path / "c.json")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="holds no CSNet channels"):
        read_config(tmp_path / "deep.json")
    for read in (read_config, read_weights):
        with pytest.raises(UserError, match="none cannot be read: No such file"):
            read(tmp_path / "none")


def test_checkpoint_without_tensors(tmp_path):
    torch.save({"state_dict": {"a": 1}}, tmp_path / "w")
    with pytest.raises(UserError, match="expected a state dict of tensors"):
        read_weights(tmp_path / "w")
