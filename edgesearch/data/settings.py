"""The configuration section `data`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from edgesearch.settings import (
    NO_EFFECT,
    AppliesTo,
    Fraction,
    PositiveFraction,
    Settings,
    UserPath,
    fault,
)

FROM_FILES = AppliesTo(
    "data.source is another than digits", lambda config: config.data.source != "digits"
)
WITH_FILES = AppliesTo(
    "data.labels is another than folders", lambda config: config.data.labels != "folders"
)


class DataSettings(Settings):
    """The images. A folder may be moved: only its contents matter."""

    source: Literal["folder", "shards", "torchvision", "digits"] = "folder"
    """A folder of images, tar shards, a torchvision data set, or scikit-learn's digits."""
    root: Annotated[UserPath | None, NO_EFFECT] = Field(default=None, validate_default=True)
    """Folder of images, shards (or a pattern, `train-{000..146}.tar`) or torchvision data set."""
    labels: Annotated[
        Literal["folders", "csv", "coco", "voc", "yolo", "maps", "masks"],
        AppliesTo("data.source is folder", lambda config: config.data.source == "folder"),
    ] = "folders"
    """Where the labels of a folder of images stand: class folders; a CSV file of paths and labels;
    boxes as in COCO, Pascal VOC or YOLO; label maps of all classes; or a mask for each class."""
    annotations: Annotated[UserPath | None, NO_EFFECT, WITH_FILES] = None
    """File or folder of these; by default at the usual place below root."""
    classes: Annotated[list[str] | None, WITH_FILES] = None
    """Names of the classes in order; by default those of the files. Others are refused."""
    name: str | None = Field(default=None, validate_default=True)
    """Class of torchvision.datasets, such as CIFAR10; its files must exist already."""
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of each class held out for evaluation if no test images with classes are found."""
    allow_missing_classes: Annotated[bool, NO_EFFECT, FROM_FILES] = False
    """Go on although no image in a class folder or split can be read; otherwise an error."""
    mean: list[Fraction] | None = None
    """Mean of each channel, for pixel values in 0 to 1; computed from the images if null."""
    std: list[PositiveFraction] | None = Field(default=None, validate_default=True)
    """Standard deviation of each channel; computed from the images if null."""
    resize_ratio: Annotated[float, Field(ge=1)] = 1.0
    """Short side before the centre crop, as a multiple of the resolution."""
    licence: Annotated[str | None, NO_EFFECT] = None
    """Licence of the images, such as CC-BY-4.0, recorded in winners' manifests."""

    @field_validator("root")
    @classmethod
    def _root_of_a_folder(cls, root: UserPath | None, info: ValidationInfo) -> UserPath | None:
        source = info.data.get("source")
        if root is None and source in ("folder", "shards", "torchvision"):
            what = "of images" if source == "folder" else f"for data.source={source}"
            raise fault(f"the path of the folder {what} is required (data.root=PATH)")
        if root is not None and source == "digits":
            raise fault(
                "null is required for data.source=digits, which has no files",
                str(root),
                "For images in a folder, set data.source=folder too.",
            )
        return root

    @field_validator("name")
    @classmethod
    def _name_of_a_set(cls, name: str | None, info: ValidationInfo) -> str | None:
        of_torchvision = info.data.get("source") == "torchvision"
        if name is None and of_torchvision:
            raise fault("the name of a class of torchvision.datasets is required (data.name=NAME)")
        if name is not None and not of_torchvision and "source" in info.data:
            raise fault("null is required for any data.source but torchvision")
        return name

    @field_validator("std")
    @classmethod
    def _as_mean(cls, std: list[float] | None, info: ValidationInfo) -> list[float] | None:
        if "mean" in info.data and len(std or ()) != len(info.data["mean"] or ()):
            raise fault("as many values as in data.mean are required (or null for both)")
        return std
