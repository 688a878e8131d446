"""Label-free pre-training of the supernet."""
