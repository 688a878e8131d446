"""The chain behind supernets whose files hold other parts than those of MoCo v2."""

import json

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from edgesearch.cli.main import app


@pytest.mark.parametrize(
    ("method", "foreign"), [("densecl", []), ("simclr", ["pretrain.queue_size="])]
)
def test_winners_come_out(chain, method, foreign):
    where = [str(chain.config), f"output_dir={chain.output_dir}", "export.tensorrt=", *foreign]
    where.append(f"pretrain.method={method}")
    result = CliRunner().invoke(app, ["run", *where])
    assert result.exit_code == 0, result.output
    assert f"pretrain.method has changed from 'moco_v2' to '{method}': done anew" in result.stderr
    (winner,) = json.loads((chain.output_dir / "winners.json").read_text("utf-8"))["winners"]
    assert -1 <= winner["agreement"] <= 1
    manifest = json.loads((chain.output_dir / "engines/w0/manifest.json").read_text("utf-8"))
    assert manifest["files"]["subnet.onnx"]["parity"]["min_cosine"] >= 0.99999
    names = load_file(chain.output_dir / "supernet/model.safetensors")
    assert ("key.backbone.conv1.weight" in names) == (method == "densecl")
    assert ("key.dense_projector.fc1.weight" in names) == (method == "densecl")
    again = CliRunner().invoke(app, ["pretrain", *where])
    assert "finished before" in again.stderr
