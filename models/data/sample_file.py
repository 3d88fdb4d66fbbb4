"""The file that holds decoded samples: a header, the pixels, then an index.

    header   magic, offset and length of the index, digest of the index
    pixels   per sample the image [H, W, 3], then the mask [H, W]
    index    JSON, one list per field of `Index`

The header is written last and the file gets its name only once all of it is on the disk, so a
process that dies, or a full disk, leaves no half cache behind.
"""

import json
import mmap
import os
import struct
import tempfile
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lmwp_models.data.sources import Sample

PARTIAL_SUFFIX = ".partial"

_HEADER = struct.Struct("<16sQQ32s")
_MAGIC = b"lmwp-samples/1\0\0"
_CHANNELS = 4  # three of the image and one of the mask


class DamagedFileError(Exception):
    """The file is not whole."""


@dataclass
class Index:
    """What the file holds: one entry of each list per sample."""

    names: list[str] = field(default_factory=list)
    contents: list[str] = field(default_factory=list)
    shapes: list[tuple[int, int]] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    checksums: list[int] = field(default_factory=list)


def write_samples(path: Path, samples: Iterable[tuple[Sample, str]]) -> None:
    """Write samples, each with its content digest, to `path`: whole or not at all.

    Raises:
        OSError: the disk is full or not writable.
    """
    descriptor, partial = tempfile.mkstemp(PARTIAL_SUFFIX, dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _write(file, samples)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(partial)
        raise


def _write(file: BinaryIO, samples: Iterable[tuple[Sample, str]]) -> None:
    index = Index()
    file.write(bytes(_HEADER.size))
    for sample, content in samples:
        pixels = sample.image.tobytes() + sample.mask.tobytes()
        index.names.append(sample.name)
        index.contents.append(content)
        index.shapes.append((sample.mask.shape[0], sample.mask.shape[1]))
        index.offsets.append(file.tell())
        index.checksums.append(zlib.crc32(pixels))
        file.write(pixels)
    text = json.dumps(asdict(index)).encode()
    offset = file.tell()
    file.write(text)
    file.seek(0)
    file.write(_HEADER.pack(_MAGIC, offset, len(text), blake2b(text, digest_size=32).digest()))


class SampleReader:
    """Samples of such a file as read-only views of one memory map.

    The index is checked on opening, the pixels of a sample when it is first read.

    Raises:
        DamagedFileError: the file is truncated, altered or of another format.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with open(path, "rb") as file:
            header = file.read(_HEADER.size)
            if len(header) < _HEADER.size:
                raise DamagedFileError("no header")
            magic, offset, length, expected = _HEADER.unpack(header)
            size = os.fstat(file.fileno()).st_size
            if magic != _MAGIC or size != offset + length:
                raise DamagedFileError("wrong header or length")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        text = self._map[offset:]
        if blake2b(text, digest_size=32).digest() != expected:
            raise DamagedFileError("index altered")
        self.index = Index(**json.loads(text))
        self._checked = np.zeros(len(self.index.names), bool)

    def __reduce__(self) -> tuple[type["SampleReader"], tuple[Path]]:
        return SampleReader, (self.path,)

    def __len__(self) -> int:
        return len(self.index.names)

    def __getitem__(self, i: int) -> Sample:
        height, width = self.index.shapes[i]
        area = height * width
        pixels = np.frombuffer(self._map, np.uint8, _CHANNELS * area, self.index.offsets[i])
        if not self._checked[i]:
            if zlib.crc32(pixels.data) != self.index.checksums[i]:
                raise DamagedFileError(f"pixels of {self.index.names[i]} altered")
            self._checked[i] = True
        image = pixels[: 3 * area].reshape(height, width, 3)
        return Sample(self.index.names[i], image, pixels[3 * area :].reshape(height, width))
