"""Command report: one HTML file that shows runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from devices.files import write_bytes
from edgesearch.config import load_config, shipped_configs
from edgesearch.errors import StageError
from edgesearch.events import Report, silent
from edgesearch.report.page import GENERATOR, make_page
from edgesearch.report.run_facts import read_run
from edgesearch.run.context import RunContext
from edgesearch.run.files import CONFIG, RunFiles

RUNS = Path("runs")
"""Where runs are looked for if none is named."""
PAGE = "report.html"
_HEAD_BYTES = 1000


@dataclass(frozen=True)
class ReportResult:
    """Result of `report_on`.

    Attributes:
        runs: Folders of the runs on the page.
    """

    report_path: Path
    runs: tuple[Path, ...]
    bytes: int


def write_report(run: RunContext, path: Path | None = None) -> ReportResult:
    """Write the page of one run, by default as `report.html` in its folder.

    Whatever the run lacks is named on the page.

    Raises:
        FileError: The page cannot be written.
        StageError: Another file is there.
    """
    return _write([run], path or run.files.report)


def refresh_report(run: RunContext) -> Path:
    """Write the page of a run, unless it is newer than all other files of the run.

    Raises:
        FileError: The page cannot be written.
        StageError: Another file is there.
    """
    page, folder = run.files.report, run.files.output_dir
    others = [path for path in folder.rglob("*") if path.is_file() and path != page]
    newest = max((path.stat().st_mtime for path in others if path != run.files.lock), default=0)
    if not page.exists() or page.stat().st_mtime < newest:
        write_report(run)
    return page


def report_on(
    runs: Sequence[str], *, output: Path | None = None, report: Report = silent
) -> ReportResult:
    """Write the page of some runs; several are compared side by side.

    Args:
        runs: Folders of runs, configurations (YAML files or names of shipped ones), and texts
            `key=value` that replace values of the configurations. Without a run: all in `runs/`.
        output: The file; by default `report.html` in the folder of the run, or in the current
            folder for several.
        report: Called with each event.

    Raises:
        StageError: There is no run, or another file would be overwritten.
        ConfigError: A configuration has faults.
        FileError: The page cannot be written.
    """
    overrides = [text for text in runs if "=" in text and not Path(text).exists()]
    named = [text for text in runs if text not in overrides] or _all_runs()
    found = [_open(text, overrides, report) for text in dict.fromkeys(named)]
    several = len(found) > 1
    return _write(found, output or (Path(PAGE) if several else found[0].files.report))


def _all_runs() -> list[str]:
    found = sorted(str(path.parent) for path in RUNS.glob(f"*/{CONFIG}"))
    if not found:
        raise StageError(
            f"a run in {RUNS.absolute()}, since none was named",
            "none",
            "Name its folder or configuration: `edgesearch report FOLDER`.",
        )
    return found


def _open(text: str, overrides: Sequence[str], report: Report) -> RunContext:
    """A run by its folder or configuration."""
    folder = Path(text)
    nowhere = RunFiles(folder / "none")
    if folder.name == CONFIG and folder.is_file() and nowhere.is_output(folder.parent):
        folder = folder.parent  # which may have been moved or copied
        text = str(folder)
    if text not in shipped_configs() and not folder.exists():
        raise StageError(
            f"the folder of a run, or its configuration, at {text}",
            "nothing of that name",
            "Correct the path; `edgesearch report` without a name takes all runs in runs/.",
        )
    if text in shipped_configs() or not folder.is_dir():
        return _with_output(RunContext(load_config(text, overrides), report))
    if not (folder / CONFIG).is_file():
        raise StageError(
            f"the configuration of a run in {folder / CONFIG}, which its first stage writes",
            "no such file",
            "Name the folder of a run, or its configuration: `edgesearch report CONFIG`.",
        )
    return RunContext(load_config(str(folder / CONFIG), [*overrides, f"output_dir={text}"]), report)


def _with_output(run: RunContext) -> RunContext:
    folder = run.files.output_dir
    if not folder.is_dir():
        raise StageError(
            f"the output of a run in {folder}",
            "no such folder",
            "Start it with `edgesearch run CONFIG`, or name the folder of another run.",
        )
    return run


def _write(runs: Sequence[RunContext], path: Path) -> ReportResult:
    _refuse_others(path)
    facts = []
    for run in runs:
        with run.one_pool():
            facts.append(read_run(run))
    page = make_page(facts)
    write_bytes(path, page)
    return ReportResult(path, tuple(run.files.output_dir for run in runs), len(page))


def _refuse_others(path: Path) -> None:
    """Refuse to overwrite a file that is no report."""
    if not path.exists():
        return
    begin = b""
    if path.is_file():
        with path.open("rb") as file:
            begin = file.read(_HEAD_BYTES)
    if f'<meta name="generator" content="{GENERATOR} '.encode() not in begin:
        raise StageError(
            f"a report or nothing at {path}, to write the report there",
            "another file" if path.is_file() else "a folder",
            "Name another file: --output FILE.",
        )
