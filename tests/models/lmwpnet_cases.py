"""A small LMWP-Net."""

from torch import nn

from lmwp_models.lmwpnet import LMWPNet
from lmwp_models.mwpm import PruningGate
from lmwp_models.registry import create_model

# Small enough for a test, and of other proportions than the whole network.
SMALL = {"widths": [4, 6, 8, 10, 12], "blocks": [1, 0, 1, 2, 1], "decoder": [4, 6, 8, 10]}


def small() -> LMWPNet:
    """Norms and slopes as a trained network might have them."""
    model = create_model("lmwpnet", **SMALL)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
        if isinstance(module, nn.PReLU):
            nn.init.uniform_(module.weight, -0.1, 0.4)
        if isinstance(module, PruningGate):
            nn.init.normal_(module.fc2.weight, std=2)
            nn.init.normal_(module.threshold)
    return model
