"""Modules over the functions of `lmwp_ops`."""

from lmwp_ops.nn.batch_norm_prelu import BatchNormPReLU2d, norm_prelu_in_training
from lmwp_ops.nn.cbam import CBAM
from lmwp_ops.nn.depthwise_scales import DepthwiseScales
from lmwp_ops.nn.dilated_bank import DilatedBank
from lmwp_ops.nn.goctconv2d import GOctConv2d
from lmwp_ops.nn.il_block import ILBlock
from lmwp_ops.nn.multiscale_mix import MultiscaleMix
from lmwp_ops.nn.sparse_conv2d import SparseConv2d
from lmwp_ops.nn.sparsify import SparsifyReport, sparsify

__all__ = [
    "CBAM",
    "BatchNormPReLU2d",
    "DepthwiseScales",
    "DilatedBank",
    "GOctConv2d",
    "ILBlock",
    "MultiscaleMix",
    "SparseConv2d",
    "SparsifyReport",
    "norm_prelu_in_training",
    "sparsify",
]
