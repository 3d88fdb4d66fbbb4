"""Modules over the functions of `lmwp_ops`."""

from lmwp_ops.nn.batch_norm_prelu import BatchNormPReLU2d, norm_prelu_in_training
from lmwp_ops.nn.depthwise_scales import DepthwiseScales
from lmwp_ops.nn.dilated_bank import DilatedBank
from lmwp_ops.nn.goctconv2d import GOctConv2d
from lmwp_ops.nn.il_block import ILBlock

__all__ = [
    "BatchNormPReLU2d",
    "DepthwiseScales",
    "DilatedBank",
    "GOctConv2d",
    "ILBlock",
    "norm_prelu_in_training",
]
