"""Frozen teachers: trained networks whose embeddings of images are targets of the training.

A teacher takes whole batches of square images and gives one vector of length 1 for each, or for
each place of a feature map.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from devices.files import sha256_of
from edgesearch.errors import CheckpointError, TrainingError
from edgesearch.supernet.public_weights import read_public_weights

if TYPE_CHECKING:
    from edgesearch.teacher.settings import TeacherSettings

Numbers = tuple[float, ...]
Grid = tuple[int, int]
"""Height and width of a map, in places."""
Run = Callable[[torch.Tensor], torch.Tensor]
"""Maps images to what a network gives."""
CONSTANT = 0.9999
"""Cosine of the embeddings of two different images above which a teacher gives a constant."""


@dataclass(frozen=True)
class Form:
    """The form in which a teacher takes images.

    Attributes:
        size: Height and width, in pixels.
        mean: Mean of each channel, for pixel values in 0 … 1; None for uint8 pixels.
        std: Standard deviation of each channel, likewise.
        nhwc: Whether channels come last.
    """

    size: int
    mean: Numbers | None
    std: Numbers | None
    nhwc: bool = False


class Teacher:
    """A frozen network.

    Args:
        name: Display name.
        digest: Identifies weights and preprocessing.
        form: Form of its input.
        bgr: Whether blue comes first.
        run: Maps images in this form to a tensor (N, D), or to maps (N, D, H, W).
        device: Where tensors are expected.
        maps: Maps images in this form to maps, if `run` does not; other tensors where it has none.
    """

    def __init__(
        self,
        name: str,
        digest: str,
        form: Form,
        bgr: bool,
        run: Run,
        device: torch.device,
        maps: Run | None = None,
    ) -> None:
        self.name = name
        self.digest = digest
        self.size = form.size
        self._form, self._bgr, self._device = form, bgr, device
        self._run, self._run_maps = run, maps or run

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Embeddings (N, D) float32 of length 1 of images (N, 1 or 3, size, size) uint8.

        Raises:
            TrainingError: They are not finite or 0, or the network does not take the images.
        """
        found = self._found(images, self._run)
        if found.ndim == 4:
            found = found.mean(dim=(2, 3))
        if found.ndim != 2 or len(found) != len(images):
            raise TrainingError(
                f"one embedding (N, D), or map (N, D, H, W), for each image from {self.name}",
                f"{' × '.join(map(str, found.shape))} for {len(images)} images",
                "Name another output (pretrain.teacher.output), or another teacher.",
            )
        return self._checked(F.normalize(found.float().cpu(), dim=1))

    @torch.inference_mode()
    def maps(self, images: torch.Tensor, grid: Grid) -> torch.Tensor:
        """Maps (N, D, h, w) float32, each place of length 1, of images as in `__call__`.

        Args:
            images: (N, 1 or 3, size, size) uint8.
            grid: (h, w), to which the network's maps are averaged; see `grid_of`.

        Raises:
            TrainingError: As in `__call__`.
        """
        found = F.adaptive_avg_pool2d(self._found(images, self._run_maps).float(), grid)
        return self._checked(F.normalize(found.cpu(), dim=1))

    @torch.inference_mode()
    def grid_of(self, image: torch.Tensor, most: int) -> Grid | None:
        """The grid of the network's maps, with at most `most` places a side.

        None if it has no maps, or maps of a single place.
        """
        shape = self._found(image[None], self._run_maps).shape
        if len(shape) != 4 or shape[2] * shape[3] == 1:
            return None
        return min(most, shape[2]), min(most, shape[3])

    def _found(self, images: torch.Tensor, run: Run) -> torch.Tensor:
        """What a network gives for images (N, 1 or 3, size, size) uint8."""
        x = images.to(self._device).expand(-1, 3, -1, -1)
        if self._bgr:
            x = x.flip(1)
        form = self._form
        if form.mean is not None and form.std is not None:
            mean, std = (
                torch.tensor(v, device=x.device).view(3, 1, 1) for v in (form.mean, form.std)
            )
            x = (x.float() / 255 - mean) / std
        if form.nhwc:
            x = x.permute(0, 2, 3, 1)
        try:
            found = run(x.contiguous())
        except Exception as error:  # each runtime has its own
            raise TrainingError(
                f"a teacher that takes images of {self.size} × {self.size} pixels",
                f"{self.name}: {(str(error).strip() or repr(error)).splitlines()[-1]}",
                "Set pretrain.teacher.size as in its training, or choose another teacher.",
            ) from error
        if found.ndim == 4 and found.shape[2] != found.shape[3]:
            raise TrainingError(
                f"maps (N, D, H, W) of square images from {self.name}, as high as wide",
                f"{' × '.join(map(str, found.shape))}, such as channels that come last",
                "Export it with channels first, or name another output (pretrain.teacher.output).",
            )
        return found

    def _checked(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Embeddings or maps of length 1, if they are of use."""
        if not embeddings.isfinite().all():
            raise TrainingError(
                f"finite embeddings from {self.name}",
                "NaN or infinite values",
                "Check its preprocessing (pretrain.teacher.mean, std), or choose another teacher.",
            )
        if not embeddings.flatten(1).any(dim=1).all():
            raise TrainingError(
                f"embeddings other than 0 from {self.name}",
                "only zeros for an image",
                "Check its preprocessing (pretrain.teacher.mean, std), or choose another teacher.",
            )
        return embeddings

    def try_on(self, first: torch.Tensor, second: torch.Tensor, grid: Grid | None = None) -> int:
        """Embed two different images (1 or 3, size, size) uint8; returns D.

        With a grid, their maps are compared place by place.

        Raises:
            TrainingError: The embeddings are not finite, or the same.
        """
        embed = self if grid is None else partial(self.maps, grid=grid)
        embeddings = torch.cat([embed(image[None]) for image in (first, second)])
        cosine = float((embeddings[0] * embeddings[1]).sum(dim=0).mean())
        if not torch.equal(first, second) and cosine > CONSTANT:
            raise TrainingError(
                f"different embeddings of different images from {self.name}",
                f"a cosine of {cosine:.6f} between two images",
                "Check its preprocessing (pretrain.teacher.mean, std), or choose another teacher.",
            )
        return embeddings.shape[1]


def open_teacher(settings: TeacherSettings, init: Path | None, device: torch.device) -> Teacher:
    """Load a teacher.

    Args:
        settings: The section `pretrain.teacher`.
        init: The file of public weights that the supernet begins with, if any.
        device: Where its network runs (ONNX files: on the CPU).

    Raises:
        UserError: The file cannot be read, or the form of its input is unknown.
    """
    if settings.onnx is not None:
        return _of_onnx(settings, settings.onnx)
    if settings.torchscript is not None:
        return _of_torchscript(settings, settings.torchscript, device)
    if settings.torchvision is not None:
        return _of_torchvision(settings, settings.torchvision, device)
    if settings.timm is not None:
        return _of_timm(settings, settings.timm, device)
    if init is None:
        raise CheckpointError(
            "public weights in pretrain.init, for pretrain.teacher: init",
            "no pretrain.init",
            "Set pretrain.init, or another teacher.",
        )
    public = read_public_weights(init)
    form = _form(settings, 224, public.mean, public.std)
    network = public.network()
    return _of_module(settings, init.name, init, form, network, device, network.feature_map)


def _form(
    settings: TeacherSettings, size: int | None, mean: Numbers | None, std: Numbers | None
) -> Form:
    """The form of a float teacher, what is configured first."""
    size = settings.size or size
    mean, std = settings.mean or mean, settings.std or std
    if size is None or mean is None or std is None:
        named = {"size": size, "mean": mean, "std": std}
        raise _unknown_form([name for name, value in named.items() if value is None])
    return Form(size, tuple(mean), tuple(std))


def _unknown_form(missing: list[str]) -> TrainingError:
    keys = [f"pretrain.teacher.{name}" for name in missing]
    numbers = (
        "; mean and std are those of pixel values in 0 … 1, such as [0.485, 0.456, 0.406] and "
        "[0.229, 0.224, 0.225]"
        if missing != ["size"]
        else ""
    )
    return TrainingError(
        "the form of the teacher's input",
        f"no {' and no '.join(keys)}, and the file does not say it",
        f"Set what is missing as in the teacher's training{numbers}.",
    )


def _of_module(
    settings: TeacherSettings,
    name: str,
    file: Path,
    form: Form,
    module: nn.Module,
    device: torch.device,
    maps: Run | None = None,
) -> Teacher:
    module = module.to(device).eval()

    def run(images: torch.Tensor) -> torch.Tensor:
        found: Any = module(images)
        while not isinstance(found, torch.Tensor):
            found = next(iter(found.values())) if isinstance(found, dict) else found[0]
        return found

    return Teacher(name, _digest(settings, file, form), form, settings.bgr, run, device, maps)


def _of_torchvision(settings: TeacherSettings, name: str, device: torch.device) -> Teacher:
    from torchvision.models import get_model, get_model_weights

    try:
        module = get_model(name, weights=None)
        transforms = list(get_model_weights(name))[-1].transforms()
        known = transforms.crop_size[0], tuple(transforms.mean), tuple(transforms.std)
    except (ValueError, AttributeError, IndexError) as error:
        raise TrainingError(
            "the name of an image classifier of torchvision in pretrain.teacher.torchvision",
            f"{name!r} ({error})",
            "torchvision.models.list_models() lists the names.",
        ) from error
    file = _needed(settings)
    _load(module, file)
    last = [key for key, child in module.named_modules() if isinstance(child, nn.Linear)][-1]
    parent, _, child = last.rpartition(".")
    setattr(module.get_submodule(parent), child, nn.Identity())
    form, maps = _form(settings, *known), partial(_before_pooling, module)
    return _of_module(settings, f"torchvision's {name}", file, form, module, device, maps)


def _before_pooling(module: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """What a classifier of torchvision pools; what it gives, where that is not to be had."""
    parts, seen = dict(module.named_children()), []
    if "avgpool" in parts:
        hook = parts["avgpool"].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    elif "features" in parts:  # pooled by a function
        hook = parts["features"].register_forward_hook(lambda _, given, found: seen.append(found))
    else:
        return module(images)
    with hook:
        found = module(images)
    return seen[0] if seen else found


def _of_timm(settings: TeacherSettings, name: str, device: torch.device) -> Teacher:
    try:
        import timm
    except ImportError as error:
        raise TrainingError(
            "the package timm for pretrain.teacher.timm", "it is missing", "pip install timm"
        ) from error
    try:
        module: Any = timm.create_model(name, pretrained=False)
    except RuntimeError as error:
        raise TrainingError(
            "the name of a network of timm in pretrain.teacher.timm",
            f"{name!r} ({error})",
            "timm.list_models() lists the names.",
        ) from error
    file = _needed(settings)
    _load(module, file)
    module.reset_classifier(0)
    known = module.pretrained_cfg
    form = _form(settings, known["input_size"][1], tuple(known["mean"]), tuple(known["std"]))

    def maps(images: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = module.forward_features(images)
        last = str(getattr(module, "output_fmt", "NCHW")) == "NHWC"
        return found.permute(0, 3, 1, 2) if last else found

    return _of_module(settings, f"timm's {name}", file, form, module, device, maps)


def _needed(settings: TeacherSettings) -> Path:
    assert settings.weights is not None  # checked by TeacherSettings
    return settings.weights


def _load(module: nn.Module, file: Path) -> None:
    """Load a state dictionary, plain or under the key `state_dict` or `model`."""
    from edgesearch.supernet.weight_files import read_tensors

    entries = read_tensors(file)
    for prefix in ("", "state_dict.", "model.", "module.", "state_dict.module."):
        own = {k.removeprefix(prefix): v for k, v in entries.items() if k.startswith(prefix)}
        if set(own) >= {name for name, _ in module.named_parameters()}:
            try:
                module.load_state_dict(own, strict=False)
            except RuntimeError as error:
                raise _other_network(module, file, str(error).splitlines()[-1].strip()) from error
            return
    missing = sorted({name for name, _ in module.named_parameters()} - set(entries))
    raise _other_network(module, file, f"no {missing[0]}")


def _other_network(module: nn.Module, file: Path, found: str) -> CheckpointError:
    return CheckpointError(
        f"weights of {type(module).__name__} in {file}",
        found,
        "Correct pretrain.teacher.weights, or the name of the network.",
    )


def _of_torchscript(settings: TeacherSettings, file: Path, device: torch.device) -> Teacher:
    try:
        with warnings.catch_warnings():  # torch discourages the form itself
            warnings.simplefilter("ignore", FutureWarning)
            module = torch.jit.load(file, map_location=device)
    except (RuntimeError, ValueError, OSError) as error:
        raise CheckpointError(
            f"a TorchScript file at {file}",
            "no such file" if not file.exists() else str(error).splitlines()[0],
            "Correct pretrain.teacher.torchscript.",
        ) from error
    return _of_module(settings, file.name, file, _form(settings, None, None, None), module, device)


def _of_onnx(settings: TeacherSettings, file: Path) -> Teacher:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes have no common base
        raise CheckpointError(
            f"an ONNX file at {file}",
            "no such file" if not file.exists() else str(error).splitlines()[0],
            "Correct pretrain.teacher.onnx.",
        ) from error
    (given, *others) = session.get_inputs()
    if others or len(given.shape) != 4 or given.type not in ("tensor(uint8)", "tensor(float)"):
        raise _unknown_input(file, f"{given.name} {given.shape} {given.type}")
    if 3 not in (given.shape[1], given.shape[3]):
        raise _unknown_input(file, f"{given.name} {given.shape}")
    nhwc = given.shape[3] == 3
    side = given.shape[1 if nhwc else 2]
    size = settings.size or (side if isinstance(side, int) else None)
    if isinstance(side, int) and size != side:
        raise TrainingError(
            f"pretrain.teacher.size {side}, the only one that {file} takes",
            f"{size}",
            "Leave it out.",
        )
    if given.type == "tensor(uint8)":
        if settings.mean or settings.std:
            raise TrainingError(
                f"no pretrain.teacher.mean and std for {file}, which takes pixels of 0 to 255",
                f"mean {settings.mean}, std {settings.std}",
                "Leave them out.",
            )
        if size is None:
            raise _unknown_form(["size"])
        form = Form(size, None, None, nhwc)
    else:
        about = session.get_modelmeta().custom_metadata_map
        mean, std = (_numbers(about.get(name)) for name in ("mean", "std"))
        plain = _form(settings, size, mean, std)
        form = Form(plain.size, plain.mean, plain.std, nhwc)
    outputs = [output.name for output in session.get_outputs()]
    if settings.output not in (None, *outputs):
        raise TrainingError(
            f"an output of {file} in pretrain.teacher.output, one of {', '.join(outputs)}",
            repr(settings.output),
            "Correct it.",
        )
    chosen = [settings.output or outputs[0]]
    fixed = given.shape[0] if isinstance(given.shape[0], int) else None

    def run(images: torch.Tensor) -> torch.Tensor:
        count = len(images)
        if fixed is not None and count % fixed:  # the last image fills the last batch
            images = torch.cat([images, images[-1:].expand(fixed - count % fixed, -1, -1, -1)])
        parts = images.split(fixed or count)
        rows = [session.run(chosen, {given.name: part.numpy()})[0] for part in parts]
        return torch.from_numpy(np.concatenate(rows)[:count])

    cpu = torch.device("cpu")
    return Teacher(file.name, _digest(settings, file, form), form, settings.bgr, run, cpu)


def _numbers(text: str | None) -> Numbers | None:
    """Numbers in a file's metadata, as a JSON list; None if there are none."""
    try:
        return tuple(map(float, json.loads(text or "")))
    except (ValueError, TypeError):
        return None


def _unknown_input(file: Path, found: str) -> TrainingError:
    return TrainingError(
        f"one input of images (N, 3, H, W) or (N, H, W, 3), float or uint8, in {file}",
        found,
        "Choose another teacher, or export it with such an input.",
    )


def _digest(settings: TeacherSettings, file: Path, form: Form) -> str:
    about = json.dumps([vars(form), settings.bgr, settings.output], sort_keys=True)
    return hashlib.sha256(f"{sha256_of(file)} {about}".encode()).hexdigest()
