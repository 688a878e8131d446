"""Frozen trained networks whose embeddings of images are targets and references."""
