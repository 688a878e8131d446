"""Which GPU is found: those that are part of a board, and cards that a program tells of."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devices.gpu import read_gpu

Tree = Callable[..., Path]
Program = Callable[..., Path]

NONE = {"gpu": None, "compute_capability": None, "gpu_memory_bytes": None, "driver": None}
ORIN = "nvidia,p3768-0000+p3767-0005\0nvidia,p3767-0005\0nvidia,tegra234\0"
RELEASE = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n"


@pytest.fixture(autouse=True)
def _all_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def cards(program: Program) -> Program:
    """A machine with two cards; the program refuses what the real one refuses."""
    return program(
        "nvidia-smi",
        """
for argument in "$@"; do
  case "$argument" in
    --query-gpu=name,driver_version,memory.total,compute_cap|--format=csv,noheader) ;;
    --id=*) id="${argument#--id=}" ;;
    *) exit 6 ;;
  esac
done
first="NVIDIA H100 80GB HBM3, 570.86.15, 81559 MiB, 9.0"
second="NVIDIA GeForce RTX 4090, 570.86.15, 24564 MiB, 8.9"
case "$id" in
  "") echo "$first"; echo "$second" ;;
  0|GPU-aaaa) echo "$first" ;;
  1|GPU-bbbb) echo "$second" ;;
  *) echo "No devices were found"; exit 6 ;;
esac
""",
    )


H100 = {
    "gpu": "NVIDIA H100 80GB HBM3",
    "compute_capability": "9.0",
    "gpu_memory_bytes": 81559 << 20,
    "driver": "570.86.15",
}
RTX = {
    "gpu": "NVIDIA GeForce RTX 4090",
    "compute_capability": "8.9",
    "gpu_memory_bytes": 24564 << 20,
    "driver": "570.86.15",
}


class TestCards:
    def test_the_first_one(self, tree: Tree, cards: Path) -> None:
        assert read_gpu(tree({})) == H100

    @pytest.mark.parametrize(
        ("visible", "found"),
        [
            ("0", H100),
            ("1", RTX),
            ("1,0", RTX),
            (" 1 , 0", RTX),
            ("GPU-bbbb", RTX),
            ("", NONE),
            ("-1", NONE),
            ("-1,0", NONE),
            ("7", NONE),
            ("NoDevFiles", NONE),
        ],
    )
    def test_the_one_that_the_runtimes_see(
        self,
        tree: Tree,
        cards: Path,
        monkeypatch: pytest.MonkeyPatch,
        visible: str,
        found: dict[str, Any],
    ) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert read_gpu(tree({})) == found

    def test_no_driver(self, tree: Tree, program: Program) -> None:
        assert read_gpu(tree({})) == NONE

    @pytest.mark.parametrize(
        "script",
        [
            "exit 9",
            'echo "NVIDIA-SMI has failed because it could not talk to the driver."; exit 9',
            'echo "Failed to initialize NVML: Driver/library version mismatch"',
            'echo "a, b"',
        ],
    )
    def test_a_driver_that_is_broken(self, tree: Tree, program: Program, script: str) -> None:
        program("nvidia-smi", script)
        assert read_gpu(tree({})) == NONE

    def test_what_a_driver_does_not_know(self, tree: Tree, program: Program) -> None:
        # As on boards whose GPU shares the processor's memory.
        program("nvidia-smi", 'echo "NVIDIA GB10, 580.95.05, [N/A], 12.1"')
        assert read_gpu(tree({})) == {
            "gpu": "NVIDIA GB10",
            "compute_capability": "12.1",
            "gpu_memory_bytes": None,
            "driver": "580.95.05",
        }
        program("nvidia-smi", 'echo "[Not Supported], [Unknown Error], 8 GiB, [N/A]"')
        assert read_gpu(tree({})) == NONE


class TestBoards:
    def test_an_orin(self, tree: Tree, cards: Path) -> None:
        root = tree({"proc/device-tree/compatible": ORIN, "etc/nv_tegra_release": RELEASE})
        orin = {"gpu": "Orin", "compute_capability": "8.7", "driver": "L4T 36.4.3"}
        # Whatever the program there says: it knows neither name nor memory.
        assert read_gpu(root) == {**NONE, **orin}

    @pytest.mark.parametrize(
        ("chip", "gpu", "compute_capability"),
        [
            ("nvidia,tegra194", "Xavier", "7.2"),
            ("nvidia,tegra234", "Orin", "8.7"),
            ("nvidia,tegra264", "Thor", "11.0"),
        ],
    )
    def test_others(self, tree: Tree, chip: str, gpu: str, compute_capability: str) -> None:
        found = read_gpu(tree({"proc/device-tree/compatible": f"nvidia,board\0{chip}\0"}))
        assert found == {**NONE, "gpu": gpu, "compute_capability": compute_capability}

    @pytest.mark.parametrize("release", ["", "# R36", "R36 (release), REVISION: 4.3", "\xff"])
    def test_a_release_that_cannot_be_read(self, tree: Tree, release: str) -> None:
        root = tree({"proc/device-tree/compatible": ORIN, "etc/nv_tegra_release": release})
        assert (read_gpu(root)["gpu"], read_gpu(root)["driver"]) == ("Orin", None)

    @pytest.mark.parametrize("visible", ["", "-1"])
    def test_one_that_is_hidden(
        self, tree: Tree, monkeypatch: pytest.MonkeyPatch, visible: str
    ) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert read_gpu(tree({"proc/device-tree/compatible": ORIN})) == NONE

    def test_a_board_without_one(self, tree: Tree, program: Program) -> None:
        root = tree({"proc/device-tree/compatible": "raspberrypi,5-model-b\0brcm,bcm2712\0"})
        assert read_gpu(root) == NONE
