"""What images look like: the learned prior, its convolutions and its projection."""
