"""The optimiser and what it decays."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from lmwp_models.training.recipe import OptimizerSection


def build_optimizer(
    model: nn.Module, options: OptimizerSection, dynamic: Collection[nn.Parameter] = ()
) -> torch.optim.Adam:
    """Adam with coupled, or AdamW with decoupled weight decay on all but `dynamic` parameters.

    Gammas under dynamic weight decay are left out of the ordinary decay: it replaces theirs
    (CSNet, section 4.1).
    """
    excluded = {id(parameter) for parameter in dynamic}
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {
            "params": [p for p in parameters if id(p) not in excluded],
            "weight_decay": options.weight_decay,
        },
        {"params": [p for p in parameters if id(p) in excluded], "weight_decay": 0.0},
    ]
    kind = torch.optim.AdamW if options.kind == "adamw" else torch.optim.Adam
    return kind(
        [group for group in groups if group["params"]],
        lr=options.lr,
        betas=options.betas,
        eps=options.eps,
    )
