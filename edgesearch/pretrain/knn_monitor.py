"""kNN accuracy as a measure of training progress."""

from __future__ import annotations

import traceback
from collections.abc import Callable

import torch

from edgesearch.data.image_pool import ImagePool
from edgesearch.errors import TrainingError
from edgesearch.evaluate.judge import SubnetJudge
from edgesearch.evaluate.settings import EvaluationSettings
from edgesearch.space import Architecture
from edgesearch.supernet.weights import SupernetWeights

CALIBRATION_IMAGES = 512
BATCH_SIZE = 128


class KnnMonitor:
    """kNN accuracies of the largest and the smallest subnet.

    Batches are halved, with a notice, until they fit into the device's memory beside the training.
    """

    def __init__(
        self, pool: ImagePool, k: int, device: torch.device, notice: Callable[[str], None]
    ) -> None:
        settings = EvaluationSettings(knn_k=k)
        self.judge = SubnetJudge(pool, settings, CALIBRATION_IMAGES, BATCH_SIZE, device)
        self.notice = notice

    def __call__(self, weights: SupernetWeights) -> dict[str, float]:
        """`knn_largest` and `knn_smallest`, in 0 … 1.

        Raises:
            TrainingError: The smallest batches exceed the device's memory.
        """
        space = weights.space
        ends = {"knn_largest": space.largest, "knn_smallest": space.smallest}
        return {name: self._accuracy(weights, end) for name, end in ends.items()}

    def _accuracy(self, weights: SupernetWeights, architecture: Architecture) -> float:
        while True:
            network = weights.subnet(architecture).to(memory_format=torch.channels_last)
            try:
                return self.judge.accuracy(network, architecture.resolution)
            except torch.cuda.OutOfMemoryError as error:
                traceback.clear_frames(error.__traceback__)
                found = str(error).splitlines()[0]
            del network  # outside of `except`, whose error holds references
            self._halve(found)

    def _halve(self, found: str) -> None:
        judge = self.judge
        if judge.batch_size <= 2:
            raise TrainingError(
                "memory for the kNN monitor on the device, beside the training",
                f"{found}, with batches of {judge.batch_size} images",
                "Set pretrain.knn_every_epochs=0, or a smaller pretrain.batch_size. The state "
                "before this epoch has been kept.",
            )
        judge.batch_size //= 2
        torch.cuda.empty_cache()
        self.notice(
            f"the device has no memory for the kNN monitor's batches of {2 * judge.batch_size}: it "
            f"continues with {judge.batch_size}"
        )
