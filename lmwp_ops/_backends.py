"""Names of the backends."""

BACKENDS = ("cuda", "triton", "cpp", "reference")
"""In the order in which they are asked, where no measurement says otherwise."""

GPU_BACKENDS = ("cuda", "triton")
"""Those whose kernels run on a GPU, and are checked there at first use."""
