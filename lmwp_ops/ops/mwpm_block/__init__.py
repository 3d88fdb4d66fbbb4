"""The multi-scale weight pruning module of LMWP-Net in one call, for inference."""

from lmwp_ops.ops.mwpm_block.op import mwpm_block, pack

__all__ = ["mwpm_block", "pack"]
