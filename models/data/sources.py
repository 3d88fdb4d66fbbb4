"""Where samples come from: anything with a length, names and pictures by index."""

from collections.abc import Sequence
from functools import cached_property
from hashlib import blake2b
from typing import NamedTuple, Protocol

from lmwp_models.data.decode import ImageArray, read_bytes, read_image, read_mask
from lmwp_models.data.layouts import Pair
from lmwp_models.errors import UserError


class Sample(NamedTuple):
    """One picture with its truth.

    Arrays may be read-only views of a shared map: copy before writing.
    """

    name: str
    image: ImageArray  # RGB, uint8 [H, W, 3]
    mask: ImageArray  # grey levels, uint8 [H, W]


class Source(Protocol):
    """A finite, indexable collection of samples."""

    @property
    def names(self) -> Sequence[str]:
        """Unique names, in index order."""
        ...

    @property
    def contents(self) -> Sequence[str]:
        """One digest per picture, equal for pictures that are byte for byte the same."""
        ...

    @property
    def skipped(self) -> Sequence[str]:
        """One line per picture that was left out because it was broken or had no partner."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


def digest(data: bytes) -> str:
    """Content key of a file's bytes."""
    return blake2b(data, digest_size=16).hexdigest()


def check_sizes(sample: Sample, pair: Pair) -> Sample:
    """Return the sample; UserError if its mask has another size than its image."""
    if sample.image.shape[:2] != sample.mask.shape:
        (height, width), (mask_height, mask_width) = sample.image.shape[:2], sample.mask.shape
        raise UserError(
            f"{pair.mask} is {mask_width}x{mask_height} but its image {pair.image} is "
            f"{width}x{height}: a mask must have the size of its image"
        )
    return sample


class FolderSource:
    """Pairs of files, decoded on every access."""

    def __init__(self, pairs: Sequence[Pair], skipped: Sequence[str] = ()) -> None:
        self.pairs = list(pairs)
        self.skipped = list(skipped)

    @cached_property
    def names(self) -> list[str]:
        return [pair.name for pair in self.pairs]

    @cached_property
    def contents(self) -> list[str]:
        return [digest(read_bytes(pair.image)) for pair in self.pairs]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        pair = self.pairs[index]
        sample = Sample(pair.name, read_image(pair.image), read_mask(pair.mask))
        return check_sizes(sample, pair)


class SubsetSource:
    """Some samples of another source, in the order of `indices`."""

    skipped: Sequence[str] = ()

    def __init__(self, source: Source, indices: Sequence[int]) -> None:
        self.source = source
        self.indices = list(indices)

    @cached_property
    def names(self) -> list[str]:
        names = self.source.names
        return [names[index] for index in self.indices]

    @cached_property
    def contents(self) -> list[str]:
        contents = self.source.contents
        return [contents[index] for index in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.source[self.indices[index]]
