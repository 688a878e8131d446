"""What to say when a process that loads images has died."""

from __future__ import annotations

from edgesearch.errors import TrainingError


def dead_worker(error: RuntimeError) -> TrainingError | None:
    """The error to raise for one of torch's; None if it tells of no dead worker process.

    torch raises its own wherever the main process is when it hears of the death, also within a
    training step.
    """
    message = " ".join(str(error).split())
    if not message.startswith("DataLoader worker"):
        return None
    return TrainingError(
        "processes that load images (pretrain.workers) and live as long as an epoch",
        message,
        "The system ends processes when memory runs out: set fewer pretrain.workers or a smaller "
        "pretrain.batch_size (in a container, more shared memory). The last good state has been "
        "kept: run the same command again to go on.",
    )
