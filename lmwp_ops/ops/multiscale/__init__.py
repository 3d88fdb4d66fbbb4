"""What `goctconv2d` and `dilated_bank` have in common on a GPU: sums of convolutions of branches
at several scales. Not an op of its own."""
