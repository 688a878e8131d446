"""What eight bits cost a winner and how much faster they are, on a user's own images.

For the first winner of a finished run: latency in eight bits against single precision, in turn, and
the kNN accuracy of both ONNX files on all labelled images (training images vote on test images).
A loss of at most one point is wanted.

Usage: python benchmarks/eight_bits.py CONFIG [KEY=VALUE ...]
(CONFIG after `edgesearch run`; run nothing else meanwhile)
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from export_speed import report_eight_bits
from machine import print_machine

from edgesearch.config import load_config

ALL = 10**6


def main() -> None:
    """Print one line of latencies and one of accuracies."""
    name, *overrides = sys.argv[1:]
    config = load_config(name, overrides)
    print_machine()
    print(f"eight_bits: {name} {' '.join(overrides)}")
    with tempfile.TemporaryDirectory() as folder:
        report_eight_bits(config, config.output_dir / "engines/w0/subnet.onnx", Path(folder), ALL)


if __name__ == "__main__":
    main()
