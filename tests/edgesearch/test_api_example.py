"""The example of the Python API that the documentation shows."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/reference/python.md"
EXAMPLE = """\
import edgesearch

run = edgesearch.Run("quickstart", "pretrain.epochs=3", "search.evaluations=16")
table = run.profile()  # measures the blocks of all networks on this machine
print(table.description)
run.pretrain()  # trains the supernet on images without labels
result = run.search()
for winner in result.winners.winners:
    latency_ms = winner.latency_ms["local-cpu"]["predicted"]
    print(f"{winner.architecture}: agreement {winner.agreement:.3f}, {latency_ms:.3f} ms")
"""


def test_the_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(EXAMPLE, PAGE.name, "exec"), {})
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("Latencies of the device local-cpu: ")
    assert re.fullmatch(r"stem\d+_\S+: agreement -?[01]\.\d{3}, \d+\.\d{3} ms", last)
    assert (tmp_path / "runs/quickstart/winners.json").is_file()


def test_the_page_shows_just_it():
    shown = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert shown == [EXAMPLE]
