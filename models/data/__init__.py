"""Data sets: finding, decoding, caching, synthesising and augmenting image and mask pairs."""

from lmwp_models.data.augment import AugmentConfig
from lmwp_models.data.cache import CachedSource, default_cache_dir
from lmwp_models.data.dataset import EpochSampler, SaliencyDataset
from lmwp_models.data.device_pictures import DevicePictures
from lmwp_models.data.layouts import Pair, find_images, find_pairs
from lmwp_models.data.memory import MemorySource
from lmwp_models.data.opening import open_source
from lmwp_models.data.sources import FolderSource, Sample, Source, SubsetSource
from lmwp_models.data.splits import holdout
from lmwp_models.data.synthetic import SyntheticSource, write_synthetic

__all__ = [
    "AugmentConfig",
    "CachedSource",
    "DevicePictures",
    "EpochSampler",
    "FolderSource",
    "MemorySource",
    "Pair",
    "SaliencyDataset",
    "Sample",
    "Source",
    "SubsetSource",
    "SyntheticSource",
    "default_cache_dir",
    "find_images",
    "find_pairs",
    "holdout",
    "open_source",
    "write_synthetic",
]
