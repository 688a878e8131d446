"""Images: where they come from, how they are decoded, and the rule that fits them to a network."""

from edgesearch.data.image_set import ImageSet, PreprocessedImages, channel_statistics
from edgesearch.data.open_images import open_images
from edgesearch.data.preprocess import Preprocess
from edgesearch.data.splits import ImageSplits

__all__ = [
    "ImageSet",
    "ImageSplits",
    "Preprocess",
    "PreprocessedImages",
    "channel_statistics",
    "open_images",
]
