"""From a configuration to the arguments of the workflow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgesearch import stages as workflow
from edgesearch.cli.budgets import budget_arguments
from edgesearch.cli.progress import Progress
from edgesearch.config import Config, DeviceSection


def run_command(name: str, config: Config, **options: Any) -> Any:
    """Do what a command is named after: the function of `workflow` of the same name.

    Args:
        name: Of the command.
        config: Gives the arguments.
        **options: Further arguments, which are no part of a configuration.
    """
    with Progress() as progress:
        shown = {"report": progress.show, **options}
        if name != "run":
            return getattr(workflow, name)(**_ARGUMENTS[name](config), **shown)
        stages = ("profile", "pretrain", "search", "export", "summary")
        return workflow.run(
            **{f"{stage}_arguments": {**_ARGUMENTS[stage](config), **shown} for stage in stages}
        )


def run_bench(path: Path, device: DeviceSection, *, rounds: int, **options: Any) -> Any:
    """Call `workflow.bench`, which needs no configuration.

    Args:
        path: The engine.
        device: The device.
        rounds: Rounds that have to count.
        **options: Further arguments.
    """
    measure = workflow.MeasureConfig(rounds=rounds, interval=0.01)
    with Progress() as progress:
        return workflow.bench(
            path, device=device.build(), measure=measure, report=progress.show, **options
        )


def profile_arguments(config: Config) -> dict[str, Any]:
    """Arguments of `workflow.profile`."""
    return {
        "space": config.space.build(),
        "device": config.device.build(),
        "output_dir": config.output_dir,
        "measure": _measure(config),
        "networks": config.profile.networks,
        "cache_dir": config.profile.cache_dir,
        "accept": config.profile.accept,
        "retry_errors": config.profile.retry_errors,
    }


def validate_arguments(config: Config) -> dict[str, Any]:
    """Arguments of `workflow.validate`."""
    return {
        "space": config.space.build(),
        "device": config.device.build(),
        "output_dir": config.output_dir,
        "measure": _measure(config),
        "networks": config.validation.networks,
        "seed": config.validation.seed,
        "cache_dir": config.profile.cache_dir,
        "accept": config.profile.accept,
        "retry_errors": config.profile.retry_errors,
    }


def pretrain_arguments(config: Config) -> dict[str, Any]:
    """Arguments of `workflow.pretrain`."""
    return {
        "space": config.space.build(),
        "images": _images(config),
        "output_dir": config.output_dir,
        "settings": config.pretrain,
        "seed": config.seed,
    }


def search_arguments(config: Config) -> dict[str, Any]:
    """Arguments of `workflow.search`."""
    section = config.search
    return {
        "space": config.space.build(),
        "device": config.device.build(),
        "images": _images(config),
        "output_dir": config.output_dir,
        **budget_arguments(section.budgets),
        "looked_at": _looked_at(config),
        "scored_by": _scored_by(config),
        "strategy": section.strategy,
        "evaluations": section.evaluations,
        "population": section.population,
        "candidates_at_once": section.candidates_at_once,
        "winners": section.winners,
        "reserves": section.reserves,
        "seed": config.seed,
        "threads": config.pretrain.threads,
        "accept": config.profile.accept,
    }


def export_arguments(config: Config) -> dict[str, Any]:
    """Arguments of `workflow.export`."""
    return {
        "space": config.space.build(),
        "device": config.device.build(),
        "images": _images(config),
        "output_dir": config.output_dir,
        "looked_at": _looked_at(config),
        "measure": _measure(config),
        "output": config.export.output,
        "batch": config.export.batch,
        "quantization": config.export.quantization,
        "max_replacements": config.export.max_replacements,
        "tensorrt": _tensorrt(config),
        "seed": config.seed,
        "cache_dir": config.profile.cache_dir,
        "accept": config.profile.accept,
    }


def summary_arguments(config: Config) -> dict[str, Any]:
    """Arguments of `workflow.summarise`."""
    return {
        "space": config.space.build(),
        "device": config.device.build(),
        "images": _images(config),
        "output_dir": config.output_dir,
        "looked_at": _looked_at(config),
        "evaluation": _evaluation(config),
        "scored_by": _scored_by(config),
        "seed": config.seed,
        "accept": config.profile.accept,
    }


def evaluate_arguments(config: Config) -> dict[str, Any]:
    """Arguments of `workflow.evaluate`."""
    return {
        "space": config.space.build(),
        "images": _images(config),
        "output_dir": config.output_dir,
        "looked_at": _looked_at(config),
        "evaluation": _evaluation(config),
        "seed": config.seed,
        "threads": config.pretrain.threads,
    }


def rank_arguments(config: Config) -> dict[str, Any]:
    """Arguments of `workflow.rank`."""
    section = config.rank
    return {
        "space": config.space.build(),
        "device": config.device.build(),
        "images": _images(config),
        "output_dir": config.output_dir,
        "looked_at": _looked_at(config),
        "evaluation": _evaluation(config),
        "settings": workflow.RankSettings(
            section.subnets, section.accuracy, section.bins, section.draws, section.seed
        ),
        "scored_by": _scored_by(config),
        "seed": config.seed,
        "threads": config.pretrain.threads,
        "accept": config.profile.accept,
    }


def _evaluation(config: Config) -> workflow.EvaluationSettings:
    section = config.evaluation
    return workflow.EvaluationSettings(
        knn_k=section.knn_k,
        knn_temperature=section.knn_temperature,
        train_images=section.train_images,
        test_images=section.test_images,
    )


def _measure(config: Config) -> workflow.MeasureConfig:
    section = config.profile
    return workflow.MeasureConfig(
        rounds=section.rounds,
        runs=section.runs,
        max_seconds=section.max_seconds,
        seed=config.seed,
        interval=section.interval,
        max_rounds=section.max_rounds,
    )


def _images(config: Config) -> workflow.ImageSource:
    data = config.data
    return workflow.ImageSource(
        source=data.source,
        root=data.root,
        name=data.name,
        holdout=data.holdout,
        mean=None if data.mean is None else tuple(data.mean),
        std=None if data.std is None else tuple(data.std),
        resize_ratio=data.resize_ratio,
        licence=data.licence,
    )


def _tensorrt(config: Config) -> workflow.TensorRTTarget | None:
    """What engines are built for; in int8 by themselves where the device runs such engines."""
    section, device = config.export.tensorrt, config.device.build()
    if section is None:
        return None
    runs_int8 = device.runtime.startswith("tensorrt") and device.precision == "int8"
    precision = section.precision or ("int8" if runs_int8 else "fp16")
    return workflow.TensorRTTarget(tuple(section.compute_capabilities), precision)


def _looked_at(config: Config) -> workflow.SearchImages:
    section = config.search
    return workflow.SearchImages(section.images, section.calibration_images, section.batch_size)


def _scored_by(config: Config) -> workflow.ScoreOptions:
    section = config.search
    return workflow.ScoreOptions(
        section.task, section.score, section.reference, tuple(section.stages or ())
    )


_ARGUMENTS = {
    "profile": profile_arguments,
    "validate": validate_arguments,
    "pretrain": pretrain_arguments,
    "search": search_arguments,
    "export": export_arguments,
    "summary": summary_arguments,
    "evaluate": evaluate_arguments,
    "rank": rank_arguments,
}
