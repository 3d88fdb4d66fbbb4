"""Samples held decoded in memory."""

from collections.abc import Sequence

from lmwp_models.data.cache import Progress
from lmwp_models.data.sources import Sample, Source


class MemorySource:
    """All samples of another source, decoded once and kept: four bytes a pixel.

    `on_progress` is called with (done, total).
    """

    def __init__(self, source: Source, on_progress: Progress | None = None) -> None:
        self.names: Sequence[str] = source.names
        self.contents: Sequence[str] = source.contents
        self.skipped: Sequence[str] = source.skipped
        self._samples = []
        for i in range(len(source)):
            name, image, mask = source[i]
            self._samples.append(Sample(name, image.copy(), mask.copy()))
            if on_progress:
                on_progress(i + 1, len(source))

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]
