"""The command line's commands."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from edgesearch import __version__
from edgesearch.cli.ask import ask_on_terminal, can_ask, confirm
from edgesearch.cli.commands import Commands
from edgesearch.cli.console import prepare_streams
from edgesearch.cli.guard import check_processes, exit_after, fail, guarded, is_first_process
from edgesearch.cli.progress import Progress, Verbosity
from edgesearch.errors import UserError

app = typer.Typer(
    name="edgesearch",
    cls=Commands,
    context_settings={"help_option_names": ["--help", "-h"]},
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigArgument = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG",
        help="A YAML file, or the name of a shipped configuration such as quickstart.",
        show_default=False,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Values that replace those of the file, such as pretrain.epochs=20. Texts and paths "
        "are taken literally, other values are YAML; nothing after the = is null.",
        show_default=False,
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, nothing else.")
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Every message as a line, and libraries' warnings.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only warnings.")]
Anew = Annotated[
    bool,
    typer.Option(
        "--anew",
        help="Start over where the settings or inputs have changed, even if the former output took "
        "longer than a few minutes; it is kept under another name.",
    ),
]


class TableFormat(str, Enum):
    """File formats for the figures of a latency table."""

    csv = "csv"


Export = Annotated[
    TableFormat | None,
    typer.Option(
        metavar="csv",
        help="Also write the table as CSV, one row per key.",
        show_default=False,
    ),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"edgesearch {__version__}", flush=True)
        raise typer.Exit


@app.callback()
def edgesearch(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """From unlabeled images, a search space and a device to engines within a latency budget."""


def _stage_command(name: str, description: str) -> None:
    """Add a stage's command; it calls the method of `Run` with the same name."""

    def command(
        config: ConfigArgument,
        overrides: Overrides = None,
        anew: Anew = False,
        verbose: Verbose = False,
        quiet: Quiet = False,
        json: AsJson = False,
    ) -> None:
        _run(name, config, overrides, json, _verbosity(verbose, quiet), anew=anew)

    command.__doc__ = description
    app.command(name)(command)


def _verbosity(verbose: bool, quiet: bool) -> Verbosity:
    if verbose and quiet:
        raise typer.BadParameter("--verbose and --quiet exclude each other")
    return Verbosity.VERBOSE if verbose else Verbosity.QUIET if quiet else Verbosity.USUAL


def _run(
    name: str,
    config: str,
    overrides: list[str] | None,
    as_json: bool,
    verbosity: Verbosity = Verbosity.USUAL,
    **options: Any,
) -> None:
    def work() -> Any:
        check_processes(name)
        from edgesearch.config import load_config

        loaded = load_config(config, overrides or ())
        from edgesearch.api import Run

        with Progress(verbosity) as progress:
            run = Run(loaded, report=progress.show)
            result = getattr(run, name)(**options)
        if not as_json:
            return result
        from edgesearch.cli.results import with_data

        return with_data(result, run.contents)

    _show(work, name, as_json, verbosity)


def _show(
    work: Callable[[], Any], name: str, as_json: bool, verbosity: Verbosity = Verbosity.USUAL
) -> None:
    def work_and_print() -> None:
        result = work()
        if not is_first_process():
            return
        from edgesearch.cli import results

        if as_json:
            results.print_json(result)
        else:
            options = {"verbose": verbosity == Verbosity.VERBOSE} if name == "run" else {}
            getattr(results, f"print_{name}")(result, **options)
        sys.stdout.flush()

    guarded(work_and_print, as_json, verbosity)


@app.command("init")
def init(
    images: Annotated[
        str,
        typer.Argument(
            metavar="IMAGES", help="A folder of images, or of tar shards.", show_default=False
        ),
    ],
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="A known device.", show_default=False)
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Its name for ssh, if it is another machine."),
    ] = None,
    latency_ms: Annotated[
        float | None,
        typer.Option(metavar="X", help="Budget in milliseconds.", show_default=False),
    ] = None,
    share: Annotated[
        float | None,
        typer.Option(
            metavar="Y",
            help="Budget as a share of the largest network's latency.",
            show_default=False,
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="T",
            help="Fine-tune the winners for it: classification, detection or segmentation.",
            show_default=False,
        ),
    ] = None,
    file: Annotated[Path, typer.Option(metavar="FILE", help="The configuration to write.")] = Path(
        "edgesearch.yaml"
    ),
    json: AsJson = False,
) -> None:
    """Write a commented configuration for a folder of images; asks for what is not given."""

    def work() -> Any:
        from edgesearch.config.starting_point import Wishes
        from edgesearch.stages.init import init, take_defaults

        with Progress() as progress:
            return init(
                images,
                device=device,
                host=host,
                wishes=Wishes(latency_ms, share, task),
                path=file,
                ask=ask_on_terminal if can_ask() and not json else take_defaults,
                report=progress.show,
            )

    _show(work, "init", json)


_stage_command("plan", "Say what would be done, and how long it takes on this machine.")


@app.command("spaces")
def spaces(json: AsJson = False) -> None:
    """List the search spaces."""

    def work() -> Any:
        from edgesearch.stages.catalog import spaces

        return spaces()

    _show(work, "spaces", json)


@app.command("configs")
def configs(json: AsJson = False) -> None:
    """List the configurations that come with edgesearch."""

    def work() -> Any:
        from edgesearch.stages.catalog import configs

        return configs()

    _show(work, "configs", json)


@app.command("keys")
def keys(
    prefix: Annotated[
        str,
        typer.Argument(
            metavar="PREFIX", help="Such as pretrain, or search.budgets.", show_default=False
        ),
    ] = "",
    json: AsJson = False,
) -> None:
    """List the keys of a configuration with values, default and meaning."""

    def work() -> Any:
        from edgesearch.config.keys import keys

        return keys(prefix)

    _show(work, "keys", json)


@app.command("clean")
def clean(
    config: ConfigArgument,
    overrides: Overrides = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Remove without asking what is listed.")
    ] = False,
    json: AsJson = False,
) -> None:
    """List what was set aside in an output folder, and remove it if you agree."""

    def work() -> Any:
        from edgesearch.stages.clean import clean, output_dir_of

        agree = confirm if can_ask() and not json and not yes else lambda found: yes
        return clean(output_dir_of(config, overrides or ()), agree)

    _show(work, "clean", json)


@app.command("profile")
def profile(
    config: ConfigArgument,
    overrides: Overrides = None,
    export: Export = None,
    again: Annotated[
        bool, typer.Option("--again", help="Keep the former table aside, and measure anew.")
    ] = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
    json: AsJson = False,
) -> None:
    """Build or resume the device's latency table."""
    options = {"export_csv": export is not None, "again": again}
    _run("profile", config, overrides, json, _verbosity(verbose, quiet), **options)


@app.command("validate")
def validate(
    config: ConfigArgument,
    overrides: Overrides = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
    json: AsJson = False,
) -> None:
    """Measure whole subnets that are not in the table, and compare with predictions."""
    _run("validate", config, overrides, json, _verbosity(verbose, quiet))


_stage_command("pretrain", "Train the supernet on unlabeled images.")
_stage_command("search", "Find the best subnets within the budgets.")
_stage_command("finetune", "Train the winners, or other subnets, for a task with labels.")
_stage_command("export", "Compile, verify and measure the winners.")
_stage_command("compare", "Train and measure the winners beside networks you might have picked.")
_stage_command("rank", "Measure how well the score ranks subnets by accuracy.")
_stage_command(
    "run",
    "Run all stages (finetune with a task only); finished ones are skipped.",
)


@app.command("table")
def table(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A latency table.", show_default=False)
    ],
    merge: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="OTHER",
            help="Merge another table of the same device into it; may be repeated.",
            show_default=False,
        ),
    ] = None,
    export: Export = None,
    json: AsJson = False,
) -> None:
    """Describe a latency table file; merge other tables into it."""

    def work() -> Any:
        from edgesearch.stages.table import share_table

        return share_table(file, merge=merge or (), export_csv=export is not None)

    _show(work, "table", json)


@app.command("weights")
def weights(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Weights, as in pretrain.init.", show_default=False),
    ],
    json: AsJson = False,
) -> None:
    """Say what a file of weights is, and which spaces hold its network."""

    def work() -> Any:
        from edgesearch.stages.weights import describe_weights

        return describe_weights(file)

    _show(work, "weights", json)


@app.command("bench")
def bench(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="An .onnx, .ort or .engine file.", show_default=False),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Values of the section `device`, such as threads=2 or host=NAME.",
            show_default=False,
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="OTHER",
            help="Another file, measured in the same rounds; the ratio is printed.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="A known device.")] = "local-cpu",
    batch: Annotated[
        int | None,
        typer.Option(
            min=1, help="Batch size, for a file with a dynamic batch.", show_default=False
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Undisturbed rounds to measure.")] = 24,
    json: AsJson = False,
) -> None:
    """Time an engine on a device, alone or alternating with another one."""

    def work() -> Any:
        from edgesearch.config import load_device

        spec = load_device(device, overrides or ())
        from edgesearch.stages.bench import bench as measure

        with Progress() as progress:
            return measure(
                file, device=spec, against=against, batch=batch, rounds=rounds, report=progress.show
            )

    _show(work, "bench", json)


@app.command("evaluate")
def evaluate(
    config: ConfigArgument,
    overrides: Overrides = None,
    architecture: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A subnet by name, such as stem16_w16-48-96_d2-1-2_r32; may be repeated.",
            show_default=False,
        ),
    ] = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
    json: AsJson = False,
) -> None:
    """Accuracy (kNN and linear probe) of winners, named subnets and both ends of the space."""
    verbosity = _verbosity(verbose, quiet)
    _run("evaluate", config, overrides, json, verbosity, architectures=architecture or ())


@app.command("report")
def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN|KEY=VALUE",
            help="Folders of runs, or their configurations; all in runs/ if none is named. Several "
            "are compared side by side.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The page; by default report.html in the folder of the run, or in the current "
            "folder for several.",
            show_default=False,
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Write a page that shows runs, finished or not: one HTML file that needs no network."""

    def work() -> Any:
        from edgesearch.cli.progress import Progress
        from edgesearch.stages.report import report_on

        with Progress() as progress:
            return report_on(runs or (), output=output, report=progress.show)

    _show(work, "report", json)


@app.command("devices")
def devices(
    action: Annotated[str | None, typer.Argument(metavar="show NAME", show_default=False)] = None,
    name: Annotated[str | None, typer.Argument(hidden=True)] = None,
    json: AsJson = False,
) -> None:
    """List known devices, and what was detected on this machine."""

    def work() -> Any:
        if action not in (None, "show") or (action == "show") != (name is not None):
            raise typer.BadParameter("use `edgesearch devices` or `edgesearch devices show NAME`")
        from edgesearch.stages.devices import describe_devices

        return describe_devices(name)

    _show(work, "devices", json)


def main() -> None:
    """Run the command line."""
    prepare_streams()
    try:
        os.getcwd()
    except FileNotFoundError as error:  # libraries that are loaded there end the process
        found = str(error.strerror)
        gone = UserError("a current folder that exists", found, "Change to another: cd ~")
        sys.exit(fail(gone, as_json="--json" in sys.argv).exit_code)
    try:
        app()
    except Exception as error:  # help and version are printed outside of `guarded`
        sys.exit(exit_after(error, as_json=False).exit_code)
