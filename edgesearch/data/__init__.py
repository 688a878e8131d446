"""Images: sources, decoding, splits and preprocessing."""
