"""A family that no room knows goes from its table to its engines, by its own package alone."""

import onnxruntime
import torch

import edgesearch
from edgesearch.config import Config

SPACE = {
    "name": "two tiny stages",
    "family": "tiny",
    "in_channels": 1,
    "widths": [[4, 8], [8, 16]],
    "depths": [[1, 2], [1, 2]],
    "resolutions": [16],
}


def test_from_profile_to_export(tiny_family, small_config, tmp_path):
    sections = {**small_config, "space": SPACE, "output_dir": str(tmp_path)}
    sections["search"] = {**small_config["search"], "budgets": {"latency_of_largest": 0.9}}
    run = edgesearch.Run(Config.model_validate(sections))
    table = run.profile()
    assert (table.failed_blocks, table.size) == ((), 16)
    run.pretrain()
    (winner,) = run.search().winners.winners
    assert winner.architecture in run.space
    (folder,) = run.export().folders
    subnet = edgesearch.load_subnet(folder)
    assert subnet.stage_names == ["stage0", "stage1"]
    session = onnxruntime.InferenceSession(folder / "subnet.onnx")
    images = torch.randn(1, 1, 16, 16)
    (found,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), subnet(images), atol=1e-5, rtol=1e-4)
    rows = run.evaluate(architectures=[str(run.space.smallest)]).rows
    assert {"winner w0", "named", "largest", "smallest"} <= {row.name for row in rows}
