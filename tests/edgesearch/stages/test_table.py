"""Tables that users send each other, on a finished run: words, CSV, mismatches, merging."""

import csv
import json
import re
import shutil
import sys
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from devices import DeviceSpec, load_device
from edgesearch.cli.main import app
from edgesearch.run.files import RunFiles
from edgesearch.stages.table import share_table
from profilers import LatencyTable


def table(*arguments):
    """What the command prints that has to succeed."""
    done = CliRunner().invoke(app, ["table", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done


def refused(*arguments, says=()):
    done = CliRunner().invoke(app, ["table", *map(str, arguments)])
    assert done.exit_code == 2, done.output
    assert done.stderr.count("error: required:") == 1
    for message in says:
        assert message in done.stderr


def rows(csv_path):
    with csv_path.open(encoding="utf-8", newline="") as file:
        return {row["key"]: row for row in csv.DictReader(file)}


def write_header(path, field, value):
    """Let a table be of another machine; return what it was of."""
    first, rest = path.read_text("utf-8").split("\n", 1)
    header = json.loads(first)
    was = header["fingerprint"][field]
    header["fingerprint"][field] = value
    path.write_text(f"{json.dumps(header)}\n{rest}", "utf-8")
    return was


class TestWords:
    def test_whoever_is_sent_the_file_can_read_them(self, chain, tmp_path):
        shown = chain.passes("profile").stdout
        result = chain.json("profile")
        said, place = result["description"], f"latency/{chain.table.name}"
        assert f"latency table: {chain.table}\n{said}\n" in shown
        assert said.startswith("Latencies of the device local-cpu: ")
        assert "Predictions for space " in said
        assert result["csv_path"] is None
        sent = shutil.copy(chain.table, tmp_path / "from a colleague")
        assert table(sent).stdout == f"{said}\nStages look for it at {place} in output_dir.\n"
        result = json.loads(table(sent, "--json").stdout)
        assert (result["description"], result["place"]) == (said, place)
        assert (result["merges"], result["csv_path"]) == ([], None)

    def test_copied_to_that_place_it_is_used(self, finished, empty):
        place = empty.output_dir / share_table(finished[0].table).place
        place.parent.mkdir(parents=True)
        shutil.copy(finished[0].table, place)
        assert empty.json("profile")["skipped"]

    def test_other_files_are_refused(self, chain, tmp_path):
        (tmp_path / "notes").write_text("notes\n")
        refused(tmp_path / "notes", says=["a latency table", "begins with 'notes"])
        refused(tmp_path / "none", says=["to read ", "No such file"])
        lines = chain.lines(chain.table)
        note = '{"type": "note", "owner": "edgesearch", "space_hash": "cafe", "correction": {}}'
        for line, says in (
            ('{"type": "guess"}', f"a latency table, one JSON object a line, in {chain.table}"),
            (note, f"found: line {len(lines) + 1}: KeyError"),
        ):
            chain.table.write_text("\n".join([*lines, line, lines[-1]]) + "\n", "utf-8")
            refused(chain.table, says=[says])

    def test_a_torn_line_is_told_of_once(self, chain, tmp_path):
        hers = shutil.copy(chain.table, tmp_path / "hers.jsonl")
        for torn in (chain.table, hers):
            with torn.open("a", encoding="utf-8") as file:
                file.write('{"key": "a", "sess')
        told = [f"note: {torn}: its last line is torn" for torn in (chain.table, hers)]
        shown = table(hers).stderr
        assert shown.startswith(told[1])
        assert shown.count("\n") == 1
        shown = table(chain.table, "--merge", hers).stderr
        assert [shown.count(line) for line in told] == [1, 1]
        assert "UserNotice" not in shown


class TestCsv:
    def test_profile_writes_it_with_predictions(self, chain):
        done = chain.passes("profile", "--export", "csv")
        csv_path = chain.table.with_suffix(".csv")
        assert str(csv_path) in done.stdout
        found, measured = rows(csv_path), LatencyTable.load(chain.table)
        assert set(found) >= set(measured.keys("block")) | set(measured.keys("network"))
        for key in measured.keys("network"):
            if key.startswith("network/"):
                names = ("predicted_ms", "median_ms")
                predicted, median = (float(found[key][name]) for name in names)
                assert median == pytest.approx(measured.median_ms(key), abs=1e-6)
                assert 0.2 < predicted / median < 5

    def test_of_any_table_and_never_in_its_place(self, finished, tmp_path):
        sent = shutil.copy(finished[0].table, tmp_path / "sent.csv")
        before = sent.read_bytes()
        assert table(sent, "--export", "csv").stdout.endswith(f"\n{sent}.table.csv\n")
        assert sent.read_bytes() == before
        found = rows(tmp_path / "sent.csv.table.csv")
        assert {row["device"] for row in found.values()} == {"local-cpu"}
        assert {row["predicted_ms"] for row in found.values()} == {""}

    def test_what_cannot_be_written_is_refused(self, chain):
        for arguments in (("table", str(chain.table)), ("profile", "quickstart")):
            result = CliRunner().invoke(app, [*arguments, "--export", "xlsx"])
            assert result.exit_code == 2
            assert "xlsx" in result.stderr
        assert chain.call("search", "--export", "csv").returncode == 2
        chain.table.with_suffix(".table.csv").mkdir()
        refused(
            chain.table, "--export", "csv", says=["required: to write", "found: Is a directory"]
        )


class TestAcceptedMismatches:
    def test_of_the_name(self, chain):
        mine = ("device.name=mine", "device.runtime=onnxruntime")
        shutil.copy(chain.table, RunFiles(chain.output_dir).table(DeviceSpec("mine")))
        accept = "accept the difference: profile.accept=[name]"
        for stage in ("profile", "search", "validate"):
            wanted = "required: a latency table of name 'mine' at ", "found: name 'local-cpu'"
            chain.refuses(stage, *mine, says=(*wanted, accept))
        told = "accepted by profile.accept: the table has name 'local-cpu', not 'mine'"
        for stage in ("profile", "search", "export"):
            done = chain.passes(stage, *mine, "profile.accept=[name]", "export.tensorrt=")
            assert told in done.stderr
        (winner,) = chain.read("winners.json")["winners"]
        assert winner["latency_ms"]["mine"]["measured_p50"] > 0

    @pytest.mark.parametrize("field", ["chip", "runtime_version"])
    def test_every_command_with_a_table_of_this_machine_compares_it(self, chain, field):
        here = write_header(chain.table, field, "another")
        message = f"of {field} {here!r} at {chain.table}\n  found: {field} 'another'"
        for stage in ("profile", "validate", "search", "rank", "export"):
            says = (message, f"accept the difference: profile.accept=[{field}]")
            chain.refuses(stage, says=says)
        told = f"the table has {field} 'another', not {here!r}"
        for stage in ("profile", "search"):
            assert told in chain.passes(stage, f"profile.accept=[{field}]").stderr

    def test_a_board_is_not_asked_for_what_is_there_already(self, chain):
        write_header(chain.table, "chip", "another")
        board = ("device.transport=ssh", "device.host=nowhere.invalid")
        said = "the table is complete: nowhere.invalid was not contacted"
        assert said in chain.passes("profile", *board).stderr
        chain.passes("search", *board)

    def test_the_version_of_a_runtime_that_is_not_here_is_not_compared(self, chain, monkeypatch):
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        write_header(chain.table, "runtime_version", "another")
        chain.passes("search")
        chip = write_header(chain.table, "chip", "another")
        chain.refuses("search", says=(f"of chip {chip!r} at", "found: chip 'another'"))

    def test_a_machine_of_another_speed_is_told_of(self, chain):
        sessions = LatencyTable.load(chain.table).last_session

        def change(lines):
            for line in lines[1:]:
                if "samples_ms" in line:
                    line["samples_ms"] = [sample / 3 for sample in line["samples_ms"]]
            return lines

        chain.change_table(change)
        chip = write_header(chain.table, "chip", "three times as fast")
        told = chain.passes("validate", "validation.networks=2", "profile.accept=[chip]").stderr
        message = r"the machine of the table's last session is (\d\.\d\d) times as fast as that"
        assert 0.1 < float(re.search(message, told)[1]) < 0.7
        measured = LatencyTable.load(chain.table)
        assert measured.last_session == sessions + 1
        assert measured.sessions[-1].fingerprint["chip"] == chip
        said = share_table(chain.table).description
        assert f"was measured with chip {chip!r}, not 'three times as fast'." in said

    def test_of_the_runs_lets_a_table_be_read_only(self, chain):
        two = replace(load_device("local-cpu"), threads=2)
        borrowed = RunFiles(chain.output_dir).table(two)
        shutil.copy(chain.table, borrowed)
        before = borrowed.read_bytes()
        accept = ("device.threads=2", "profile.accept=[threads]")
        for stage in ("profile", "search"):
            assert "the table has threads 1, not 2" in chain.passes(stage, *accept).stderr
        # More rounds, other networks and winners would be runs with two threads.
        message = "to be added to\n  found: threads 1, which was accepted"
        for stage, *more in (("profile", "profile.rounds=9"), ("validate",), ("export",)):
            chain.refuses(stage, *accept, *more, says=message)
        assert borrowed.read_bytes() == before


class TestMerging:
    def test_search_wants_the_correction_anew_and_profile_fits_it(self, chain, tmp_path):
        path, before = chain.table, chain.table.read_bytes()
        chain.passes("validate", "validation.networks=2")
        hers = path.rename(tmp_path / "hers.jsonl")
        path.write_bytes(before)
        shown = table(path, "--merge", hers).stdout
        assert f"from {hers}: " in shown
        assert " rounds in 1 session(s); " in shown
        assert "1 session merged from hers.jsonl." in shown
        assert "No correction is fitted to it" in shown
        chain.refuses("search", says="found: blocks, but no correction for this space")
        chain.passes("profile")
        chain.passes("search")

    def test_twice_is_once(self, finished, tmp_path):
        path = finished[0].table
        hers = shutil.copy(path, tmp_path / "hers.jsonl")
        done = table(hers, "--merge", path, "--merge", path, "--json")
        for merged in json.loads(done.stdout)["merges"]:
            assert (merged["sessions"], merged["samples"]) == (0, 0)
            assert merged["known"] == len(LatencyTable.load(path).sessions)
        assert hers.read_bytes() == path.read_bytes()

    def test_another_device_is_refused_by_field(self, chain, tmp_path):
        first, rest = chain.table.read_text("utf-8").split("\n", 1)
        header = json.loads(first)
        header["device"]["precision"] = "int8"
        hers = tmp_path / "hers.jsonl"
        hers.write_text(f"{json.dumps(header)}\n{rest}", "utf-8")
        says = ["table of precision 'fp32', like ", "found: precision 'int8'"]
        refused(chain.table, "--merge", hers, says=says)
        refused(chain.table, "--merge", tmp_path / "none", says=["to read ", "none"])


def test_a_table_beside_which_nothing_can_be_written(finished, tmp_path):
    copy = tmp_path / "theirs.jsonl"
    shutil.copy(finished[0].table, copy)
    (tmp_path / "theirs.table.csv").mkdir()
    refused(copy, "--export", "csv", says=["theirs.table.csv", "Copy theirs.jsonl to a folder"])
