"""One folder per op: reference, registration, kernels and a README with its derivation."""
