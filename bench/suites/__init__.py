"""What is measured: ops, whole networks, training steps."""
