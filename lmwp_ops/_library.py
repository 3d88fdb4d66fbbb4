"""The `lmwp_ops` operator namespace of torch.

Schemas, fakes, autograd and autocast live in Python; the compiled libraries only add
implementations. The package therefore works, slower, with none of them present.
"""

import torch

LIBRARY = torch.library.Library("lmwp_ops", "DEF")

# Inductor must hand an op the very strides its fake was traced with.
_TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides)


def define(name: str, signature: str) -> None:
    """Define `lmwp_ops::<name>` with the schema text `signature`."""
    LIBRARY.define(name + signature, tags=_TAGS)
