"""Runs whose networks are fine-tuned, for the pages that show them."""

from functools import cache

import pytest

import edgesearch
from edgesearch.config import Config

LABELS = {"classification": "folders", "detection": "yolo", "segmentation": "maps"}


@pytest.fixture(scope="session")
def tuned_for(labelled, small_config, tmp_path_factory):
    """Makes a run that has only trained the smallest network for a task, from random weights."""

    @cache
    def tuned_for(task):
        folder = tmp_path_factory.mktemp(task)
        data = {"root": str(labelled(folder / "images", task)), "labels": LABELS[task]}
        stages = {"stage_widths": [[8], [8], [8], [8, 16]], "stage_depths": [[1], [1], [1], [1]]}
        values = {
            **small_config,
            "output_dir": str(folder / "out"),
            "space": {**small_config["space"], "in_channels": 3, "resolutions": [32], **stages},
            "data": {"source": "folder", **data},
            "finetune": {"task": task, "start": ["smallest"], "weights": "random", "epochs": 1},
        }
        run = edgesearch.Run(Config.model_validate(values))
        run.finetune()
        return run

    return tuned_for


@pytest.fixture(scope="session", params=[*LABELS])
def tuned(request, tuned_for):
    """Such a run, for each task."""
    return tuned_for(request.param)
