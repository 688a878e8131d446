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
from devices.errors import FileError
from edgesearch.cli.main import app
from edgesearch.run.layout import Layout
from edgesearch.stages.table import share_table, write_csv
from profilers import LatencyTable


def invoke(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture
def call(chain):
    """Call a command in this process, on the copy of the finished run."""

    def call(stage, *overrides):
        return invoke(stage, chain.config, f"output_dir={chain.output_dir}", *overrides)

    return call


@pytest.fixture
def path(chain):
    return Layout(chain.output_dir).table(load_device("local-cpu"))


def passed(result):
    assert result.exit_code == 0, result.output
    return result


def refused(result, *messages):
    assert result.exit_code == 2, result.output
    assert result.stderr.count("error: required:") == 1
    for message in messages:
        assert message in result.stderr


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


NOTE = '{"type": "note", "owner": "edgesearch", "space_hash": "cafe", "correction": {}}'


class TestWords:
    def test_profile_prints_them_and_gives_them_as_json(self, call, path):
        shown = passed(call("profile")).stdout
        result = json.loads(passed(call("profile", "--json")).stdout)
        assert f"latency table: {path}\n{result['description']}\n" in shown
        assert result["description"].startswith("Latencies of the device local-cpu: ")
        assert "Predictions in the space " in result["description"]
        assert result["csv_path"] is None

    def test_whoever_is_sent_the_file_can_read_them(self, call, path, tmp_path):
        sent = shutil.copy(path, tmp_path / "from a colleague")
        shown = passed(invoke("table", sent)).stdout
        said = json.loads(passed(call("profile", "--json")).stdout)["description"]
        place = f"latency/{path.name}"
        assert shown == f"{said}\nIts place in an output_dir is {place}.\n"
        result = json.loads(passed(invoke("table", sent, "--json")).stdout)
        assert (result["description"], result["place"]) == (said, place)
        assert (result["merges"], result["csv_path"]) == ([], None)

    def test_copied_to_that_place_it_is_used(self, chain, path, tmp_path):
        place = tmp_path / "mine" / share_table(path).place
        place.parent.mkdir(parents=True)
        shutil.copy(path, place)
        done = passed(invoke("profile", chain.config, f"output_dir={tmp_path / 'mine'}", "--json"))
        assert json.loads(done.stdout)["skipped"]

    def test_other_files_are_refused(self, tmp_path):
        (tmp_path / "notes").write_text("notes\n")
        refused(invoke("table", tmp_path / "notes"), "a latency table", "begins with 'notes")
        refused(invoke("table", tmp_path / "none"), "to read ", "No such file")
        refused(invoke("table", tmp_path), "Is a directory")

    def test_wrong_lines_are_refused_by_file_and_number(self, path):
        number = len(path.read_text("utf-8").splitlines()) + 1
        with path.open("a", encoding="utf-8") as file:
            file.write('{"type": "guess"}\n{}\n')
        refused(invoke("table", path), f"a latency table, one JSON object a line, in {path}")
        text = path.read_text("utf-8").replace('{"type": "guess"}\n{}', NOTE)
        path.write_text(text, "utf-8")
        refused(invoke("table", path), f"wrote in {path}", f"found: line {number}: KeyError")

    def test_a_torn_line_is_told_of_once(self, path, tmp_path):
        hers = shutil.copy(path, tmp_path / "hers.jsonl")
        for torn in (path, hers):
            with torn.open("a", encoding="utf-8") as file:
                file.write('{"key": "a", "sess')
        told = [f"note: {torn}: its last line is torn" for torn in (path, hers)]
        shown = passed(invoke("table", hers)).stderr
        assert shown.startswith(told[1])
        assert shown.count("\n") == 1
        shown = passed(invoke("table", path, "--merge", hers)).stderr
        assert [shown.count(line) for line in told] == [1, 1]
        assert "UserNotice" not in shown


class TestCsv:
    def test_profile_writes_it_with_predictions(self, call, path):
        result = json.loads(passed(call("profile", "--export", "csv", "--json")).stdout)
        csv_path = path.with_suffix(".csv")
        assert result["csv_path"] == str(csv_path)
        found, table = rows(csv_path), LatencyTable.load(path)
        assert set(found) >= set(table.keys("block")) | set(table.keys("network"))
        for key in table.keys("network"):
            if key.startswith("network/"):
                predicted, median = (
                    float(found[key][name]) for name in ("predicted_ms", "median_ms")
                )
                assert median == pytest.approx(table.median_ms(key), abs=1e-6)
                assert 0.2 < predicted / median < 5
        assert str(csv_path) in passed(call("profile", "--export", "csv")).stdout

    def test_of_any_table(self, path, tmp_path):
        sent = shutil.copy(path, tmp_path / "sent.jsonl")
        shown = passed(invoke("table", sent, "--export", "csv")).stdout
        assert shown.endswith(f"\n{tmp_path / 'sent.table.csv'}\n")
        found = rows(tmp_path / "sent.table.csv")
        assert {row["device"] for row in found.values()} == {"local-cpu"}
        assert {row["predicted_ms"] for row in found.values()} == {""}

    def test_it_never_takes_the_place_of_the_table(self, path, tmp_path):
        sent = shutil.copy(path, tmp_path / "sent.csv")
        before = sent.read_bytes()
        assert share_table(sent, export_csv=True).csv_path == tmp_path / "sent.csv.table.csv"
        assert sent.read_bytes() == before

    def test_other_formats_are_refused(self, call, path):
        for arguments in (("table", path), ("profile", "quickstart")):
            result = invoke(*arguments, "--export", "xlsx")
            assert result.exit_code == 2
            assert "xlsx" in result.stderr

    def test_only_profile_and_table_have_it(self, call):
        assert call("search", "--export", "csv").exit_code == 2

    def test_a_place_that_cannot_be_written_to(self, path):
        path.with_suffix(".table.csv").mkdir()
        with pytest.raises(FileError, match="room to write .*csv; found: Is a directory"):
            write_csv(LatencyTable.load(path))


class TestAcceptedMismatches:
    def test_of_the_name(self, call, chain, path):
        mine = ("device.name=mine", "device.runtime=onnxruntime")
        shutil.copy(path, Layout(chain.output_dir).table(DeviceSpec("mine")))
        accept = "take it as it is: profile.accept=[name]"
        for stage in ("profile", "search", "validate"):
            refused(call(stage, *mine), "must be of name 'mine'\n  found: name 'local-cpu'", accept)
        told = "accepted, as profile.accept says: the table is of name 'local-cpu', not 'mine'"
        for stage in ("profile", "search", "export"):
            assert told in passed(call(stage, *mine, "profile.accept=[name]")).stderr
        winners = json.loads((chain.output_dir / "winners.json").read_text("utf-8"))
        assert winners["winners"][0]["latency_ms"]["mine"]["measured_p50"] > 0

    def test_of_the_machine(self, call, path):
        chip = write_header(path, "chip", "hers")
        sessions = LatencyTable.load(path).last_session
        refused(call("profile"), f"must be of chip {chip!r}\n  found: chip 'hers'")
        refused(call("validate", "validation.networks=2"), f"must be of chip {chip!r}")
        told = f"the table is of chip 'hers', not {chip!r}"
        assert told in passed(call("profile", "profile.accept=[chip]")).stderr
        measured = ("validate", "validation.networks=2", "profile.accept=[chip]")
        passed(call(*measured))
        table = LatencyTable.load(path)
        assert table.last_session == sessions + 1
        assert table.sessions[-1].fingerprint["chip"] == chip
        assert f"was measured with chip {chip!r}, not 'hers'." in share_table(path).description

    @pytest.mark.parametrize("field", ["chip", "runtime_version"])
    def test_every_command_with_a_table_of_this_machine_compares_it(self, call, path, field):
        here = write_header(path, field, "another")
        message = f"must be of {field} {here!r}\n  found: {field} 'another'"
        for stage in ("profile", "validate", "search", "rank", "export"):
            refused(call(stage), message, f"take it as it is: profile.accept=[{field}]")
        told = f"the table is of {field} 'another', not {here!r}"
        for stage in ("profile", "search"):
            assert told in passed(call(stage, f"profile.accept=[{field}]")).stderr

    def test_a_board_is_not_asked_for_what_is_there_already(self, call, path):
        write_header(path, "chip", "another")
        board = ("device.transport=ssh", "device.host=nowhere.invalid")
        said = "the table is complete: what nowhere.invalid is now was not asked"
        assert said in passed(call("profile", *board)).stderr
        passed(call("search", *board))

    def test_the_version_of_a_runtime_that_is_not_here_is_not_compared(
        self, call, path, monkeypatch
    ):
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        passed(call("search"))
        write_header(path, "runtime_version", "another")
        passed(call("search"))
        chip = write_header(path, "chip", "another")
        refused(call("search"), f"must be of chip {chip!r}\n  found: chip 'another'")

    def test_a_machine_of_another_speed_is_told_of(self, call, path):
        first, *rest = path.read_text("utf-8").splitlines()
        header = json.loads(first)
        header["fingerprint"]["chip"] = "three times as fast"
        lines = [json.loads(line) for line in rest]
        for line in lines:
            if "samples_ms" in line:
                line["samples_ms"] = [sample / 3 for sample in line["samples_ms"]]
        path.write_text("".join(json.dumps(line) + "\n" for line in (header, *lines)), "utf-8")
        told = passed(call("validate", "validation.networks=2", "profile.accept=[chip]")).stderr
        message = r"the machine of the table's last session is (\d\.\d\d) times as fast as that"
        assert 0.1 < float(re.search(message, told)[1]) < 0.7

    def test_of_the_runs_lets_a_table_be_read_only(self, call, chain, path):
        two = replace(load_device("local-cpu"), threads=2)
        borrowed = Layout(chain.output_dir).table(two)
        shutil.copy(path, borrowed)
        before = LatencyTable.load(borrowed).last_session
        accept = ("device.threads=2", "profile.accept=[threads]")
        told = "the table is of threads 1, not 2"
        for stage in ("profile", "search"):
            assert told in passed(call(stage, *accept)).stderr
        # More rounds, other networks and winners would be runs with two threads.
        message = "must be of threads 2 to be added to\n  found: threads 1, which was accepted"
        for stage, *more in (("profile", "profile.rounds=9"), ("validate",), ("export",)):
            refused(call(stage, *accept, *more), message)
        assert LatencyTable.load(borrowed).last_session == before

    def test_fields_that_tables_are_not_compared_in(self, call):
        fields = "name, runtime, provider, precision, batch, threads, chip, instruction_sets"
        refused(
            call("profile", "profile.accept=[drivr]"),
            f"profile.accept: fields in which tables are compared are required: {fields}",
            "found: 'drivr'",
        )

    def test_a_space_cannot_be_accepted(self, call):
        refused(call("profile", "profile.accept=[space]"), "found: 'space'")


class TestMerging:
    def test_search_wants_the_correction_anew_and_profile_fits_it(self, call, path, tmp_path):
        before = path.read_bytes()
        passed(call("validate", "validation.networks=3"))
        hers = path.rename(tmp_path / "hers.jsonl")
        path.write_bytes(before)
        result = passed(invoke("table", path, "--merge", hers))
        assert f"from {hers}: " in result.stdout
        assert " rounds in 1 session(s); " in result.stdout
        assert "1 session merged from hers.jsonl." in result.stdout
        assert "No prediction of whole networks is fitted to it" in result.stdout
        refused(call("search"), "found: blocks, but no correction for this space")
        passed(call("profile"))
        passed(call("search"))

    def test_twice_is_once(self, path, tmp_path):
        hers = shutil.copy(path, tmp_path / "hers.jsonl")
        before = hers.read_bytes()
        done = passed(invoke("table", hers, "--merge", path, "--merge", path, "--json"))
        for merged in json.loads(done.stdout)["merges"]:
            assert (merged["sessions"], merged["samples"]) == (0, 0)
            assert merged["known"] == len(LatencyTable.load(path).sessions)
        assert hers.read_bytes() == before

    def test_another_device_is_refused_by_field(self, path, tmp_path):
        first, rest = path.read_text("utf-8").split("\n", 1)
        header = json.loads(first)
        header["device"]["precision"] = "int8"
        hers = tmp_path / "hers.jsonl"
        hers.write_text(f"{json.dumps(header)}\n{rest}", "utf-8")
        refused(
            invoke("table", path, "--merge", hers),
            "hers.jsonl must be of precision 'fp32', as",
            "found: precision 'int8'",
        )
        with pytest.raises(FileError, match="to read .*none"):
            share_table(path, merge=[tmp_path / "none"])
