"""Prints the results of commands."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any

from devices.values import in_shell
from edgesearch.space.count import Count
from edgesearch.words import duration_words, ms_words, size_words

if TYPE_CHECKING:
    from edgesearch.compare.results import CompareResult
    from edgesearch.compare.standing import Difference
    from edgesearch.config.keys import Key
    from edgesearch.data.contents import Contents
    from edgesearch.stages.bench import BenchResult
    from edgesearch.stages.catalog import ConfigsResult, SpacesResult
    from edgesearch.stages.clean import CleanResult
    from edgesearch.stages.devices import DevicesResult
    from edgesearch.stages.evaluate import EvaluateResult
    from edgesearch.stages.export import ExportResult
    from edgesearch.stages.finetune import FinetuneResult
    from edgesearch.stages.init import InitResult
    from edgesearch.stages.plan import PlanResult
    from edgesearch.stages.pretrain import PretrainResult
    from edgesearch.stages.profile import ProfileResult
    from edgesearch.stages.rank import RankResult
    from edgesearch.stages.report import ReportResult
    from edgesearch.stages.run import RunResult
    from edgesearch.stages.search import SearchResult
    from edgesearch.stages.summary import SummaryRow
    from edgesearch.stages.table import TableResult
    from edgesearch.stages.validate import ValidateResult
    from edgesearch.stages.weights import OwnWeightsResult, WeightsResult

GAP = 2
"""Spaces between the columns of a table."""
NARROWEST_TEXT = 12
"""Minimum width of a text column on a narrow terminal."""


def with_data(result: Any, contents: Contents | None) -> Any:
    """A result, with how the images were understood under `data` if the command has read any."""
    if contents is None:
        return result
    return {**_plain(result), "data": {"understood": str(contents), **_plain(contents)}}


def print_json(result: Any) -> None:
    """Print a result as one JSON object."""
    print(json.dumps(_plain(result)))


def _plain(value: Any) -> Any:
    """Convert mappings, dataclasses, tuples and paths to plain JSON types."""
    if isinstance(value, Mapping):  # also an architecture
        return {str(key): _plain(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # not valid in JSON
    return str(value) if isinstance(value, Path) else value


def print_init(result: InitResult) -> None:
    """Print the file, and what to do next."""
    for note in result.notes:
        print(f"note: {note}")
    path = in_shell(result.path)
    print(
        f"{result.path} is written; each line says why it has its value. Next:\n"
        f"  edgesearch plan {path}   # what would be done, and how long it takes here\n"
        f"  edgesearch run {path}    # do it"
    )


def print_plan(result: PlanResult) -> None:
    """Print what is left of each stage, and what it needs."""
    from edgesearch.stages.plan import FINISHED

    rows = [
        [
            stage.name,
            stage.state,
            ""
            if stage.state == FINISHED
            else "?"
            if stage.seconds is None
            else duration_words(stage.seconds),
            stage.work,
        ]
        for stage in result.stages
    ]
    for name, state, time, work in rows:
        print(f"{name:>8}  {state:8}  {time:>10}  {work}")
    left = [stage for stage in result.stages if stage.state != FINISHED]
    unknown = [stage.name for stage in left if stage.seconds is None]
    if left:
        without = f", without {', '.join(unknown)}" if unknown else ""
        print(f"   total            {duration_words(result.seconds):>10}  on this machine{without}")
    else:
        print("nothing is left to do")
    print()
    if result.memory_bytes is not None:
        machine = size_words(result.machine_bytes) if result.machine_bytes else "unknown"
        print(f"memory: {size_words(result.memory_bytes)} at the peak of these steps, of {machine}")
    table = "" if result.table_bytes is None else f"; table: {size_words(result.table_bytes)}"
    print(
        f"disk: {size_words(result.disk_bytes)} for states and weights, of "
        f"{size_words(result.free_bytes)} that are free{table}"
    )
    if result.latency_ms is None:
        print(f"latencies of the space: {result.latency_from}")
    else:
        low, high = result.latency_ms
        print(
            f"latencies of the space: {ms_words(low)} (smallest network) to {ms_words(high)} "
            f"(largest), {result.latency_from}; {result.latency_of}"
        )
    print(f"budgets: {'; '.join(result.budgets) or 'none'}")
    if result.verdict:
        print(f"{'' if result.feasible else 'warning: '}{result.verdict}")


def print_spaces(result: SpacesResult) -> None:
    """Print the spaces, with their ends."""
    rows = [
        [
            space.name,
            f"{space.size:,}",
            ", ".join(map(str, space.resolutions)),
            f"{_millions(space.macs[0])} to {_millions(space.macs[1])}",
            f"{_millions(space.params[0])} to {_millions(space.params[1])}",
        ]
        for space in result.spaces
    ]
    _print_table(["space", "architectures", "pixels", "M MACs", "M params"], rows)
    print()
    for space in result.spaces:
        print(f"{space.name}: {space.about}")
    print("\nspace.name=NAME chooses one; space.resolutions=[128] and other fields narrow it.")


def _millions(count: float) -> str:
    return f"{count / 1e6:,.0f}" if count >= 1e7 else f"{count / 1e6:.2g}"


def print_configs(result: ConfigsResult) -> None:
    """Print the configurations that come with edgesearch."""
    for config in result.configs:
        print(f"{config.name} (space {config.space}): {config.about}")
    print("\n`edgesearch init IMAGES` writes one for your images.")


def print_keys(keys: list[Key]) -> None:
    """Print keys with kind, default and meaning."""
    for key in keys:
        default = "required" if key.default is None else f"default {key.default}"
        print(f"{key.path}: {key.kind}; {default}\n    {key.meaning}")


def print_clean(result: CleanResult) -> None:
    """Print what was found, and whether it is gone."""
    if not result.found:
        print(f"nothing was set aside in {result.output_dir}")
        return
    for each in result.found:
        verb = "removed " if result.removed else ""
        print(f"{verb}{each.path} ({size_words(each.size_bytes)}, {each.written}): {each.about}")
    size = size_words(result.size_bytes)
    print(
        f"{size} freed"
        if result.removed
        else f"{size} in all; nothing was removed (--yes removes what is listed)"
    )


NOTHING_MS = 1e-6
"""Terms of a formula below it are left out."""


def _formula(first: str, *terms: tuple[float, str]) -> str:
    """A sum of terms in ms; terms that are 0 are left out."""
    shown = [(ms, words) for ms, words in terms if abs(ms) >= NOTHING_MS]
    return first + "".join(
        f" {'+' if ms > 0 else '-'} {_digits(abs(ms))} ms{words}" for ms, words in shown
    )


def _digits(ms: float) -> str:
    """Four decimals, or two digits of what is less."""
    return f"{ms:.4f}" if ms >= 0.001 else f"{ms:.2g}"


def print_profile(result: ProfileResult) -> None:
    """Print the description of the table, and the prediction formula fitted to it."""
    correction = result.correction
    print(f"latency table: {result.table_path}\n{result.description}")
    kind = "cold" if correction.cold else "warm"
    formula = _formula(
        f"{correction.scale:.4f} × sum of its {kind} blocks",
        (correction.offset_ms, ""),
        (correction.per_block_ms, " × number of blocks"),
        (correction.per_million_params_ms, " × millions of parameters"),
        (correction.crowding_ms, " × (millions of parameters)³"),
        (correction.per_million_values_ms, " × millions of values that blocks put out"),
    )
    print(f"Network latency = {formula}; p95 = {correction.p95_ratio:.3f} × median.")
    fit = result.head_fit
    if fit is not None:
        formula = _formula(
            f"{fit.scale:.4f} × network without what the head replaces",
            (fit.offset_ms, ""),
            (fit.per_million_macs_ms, " × million multiply-accumulates of the head"),
            (fit.per_million_values_ms, " × million values of its layers"),
        )
        print(
            f"Latency of the {result.latency_of} = {formula}; p95 = {fit.p95_ratio:.3f} × median."
        )
    low, high = result.latencies_ms
    said = f"as predicted ({result.latency_of})"
    print(f"Networks of the space take {low:.3f} to {high:.3f} ms, {said}.")
    if result.csv_path:
        print(result.csv_path)
    if result.failed_blocks:
        print(f"{len(result.failed_blocks)} blocks cannot run: {', '.join(result.failed_blocks)}")
    _print_cannot_run(result)


def print_table(result: TableResult) -> None:
    """Print the merges, the description, and where the table belongs."""
    for merged in result.merges:
        print(
            f"from {merged.other_path}: {merged.samples} rounds in {merged.sessions} session(s); "
            f"{merged.known} were already in the table"
        )
    print(f"{result.description}\nStages look for it at {result.place} in output_dir.")
    if result.csv_path:
        print(result.csv_path)


def print_weights(result: WeightsResult | OwnWeightsResult) -> None:
    """Print what a file is, and the spaces that hold its network."""
    from edgesearch.stages.weights import OwnWeightsResult

    licence = result.licence or "unknown; pretrain.init_licence=NAME puts it into the manifests"
    if isinstance(result, OwnWeightsResult):
        trained = f", trained by {result.method}" if result.method else ""
        print(
            f"{result.path}: a supernet of edgesearch{trained}\n{result.family} space "
            f"{result.space}, {result.architectures:,} architectures; pretrain.init takes it in a "
            "run of this space"
        )
        if result.source:
            print(f"It began with {result.source}; licence: {licence}")
        return
    print(
        f"{result.path}: {result.kind}\n{result.family} network {result.architecture}, "
        f"{result.params / 1e6:.2f} M parameters without classifier; pixels normalised by mean "
        f"{_joined(result.mean)} and deviation {_joined(result.std)}\nlicence: {licence}"
    )
    for fit in result.spaces:
        if fit.member:
            print(f"{fit.space} holds it{'' if fit.exact else ' within'}: {fit.member}")
        else:
            print(f"{fit.space} does not hold it: it has {fit.reason}")


def _joined(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def print_validate(result: ValidateResult) -> None:
    """Print predicted and measured latencies, and the errors."""
    rows = [
        [
            network.architecture,
            f"{network.predicted_ms:.3f}",
            f"{network.measured_ms:.3f}",
            f"{network.predicted_ms / network.measured_ms - 1:+.1%}",
            f"{network.predicted_p95_ms:.3f}",
            f"{network.measured_p95_ms:.3f}",
        ]
        for network in result.networks
    ]
    header = ["architecture", "predicted ms", "measured ms", "error"]
    print(f"latencies: {result.latency_of}")
    _print_table([*header, "predicted p95", "measured p95"], rows)
    tau = _shown(result.kendall_tau, ".3f")
    again = "" if result.held_out else " to which the predictions are fitted, measured again"
    print(
        f"\n{result.n} networks{again}: mean error {result.mape:.2%} (bias {result.bias:+.2%}), "
        f"worst {result.worst:.1%}; {result.within_5:.0%} within 5 %, {result.within_10:.0%} "
        f"within 10 %; Kendall tau {tau}; mean error of the 95th percentiles {result.p95_mape:.1%}"
    )
    if result.post_processing is not None:
        post = result.post_processing
        means = (
            f"of a trained network on {post.images} test images"
            if post.trained
            else "at most, with every box of an untrained head a candidate"
        )
        by = "in the graph" if post.in_graph else "in numpy, as the kit does it"
        low, high = (f(each.measured_ms for each in result.networks) for f in (min, max))
        print(
            f"post-processing (suppression of overlapping boxes {by}, on this machine), {means}: "
            f"median {post.median_ms:.3f} ms, 95th percentile "
            f"{post.p95_ms:.3f} ms. Budgets and the latencies above are without it; measured "
            f"medians are {low:.3f} to {high:.3f} ms without and {low + post.median_ms:.3f} to "
            f"{high + post.median_ms:.3f} ms with it"
        )
    print(result.steadiness.of_table)
    print(f"{result.report_path}\n{result.plot_path}")


def print_pretrain(result: PretrainResult) -> None:
    """Print the path of the supernet."""
    print(f"supernet: {result.weights_path}")


def print_finetune(result: FinetuneResult) -> None:
    """Print what each network reaches on the test images."""
    names = list(result.rows[0].figures) if result.rows else []
    header = ["network", "architecture", *(name.replace("_", " ") for name in names)]
    rows = [
        [
            row.name,
            row.architecture,
            *(f"{row.figures[name]:.1%}" for name in names),
            f"{row.params / 1e6:.2f}",
            f"{row.duration_s:.0f}",
        ]
        for row in result.rows
    ]
    _print_table([*header, "M params", "s"], rows)
    if result.rows:
        row = result.rows[0]
        held = f", {row.validation_images:,} to choose an epoch" if row.validation_images else ""
        print(
            f"\n{result.task}, head {result.head}: trained on {row.train_images:,} images{held}, "
            f"judged on {row.test_images:,} test images"
        )
    print(result.results_path)


def print_compare(result: CompareResult) -> None:
    """Print the networks from fast to slow, and how the winners stand."""
    metric = result.metric.replace("_", " ")
    with_int8 = any(row.int8_metric is not None for row in result.rows)
    header = ["network", "px", "begins", metric, "ms", "p95", "M params", "MB"]
    if with_int8:
        header += ["in int8", "ms"]
    header += ["front", "winner ahead"]
    rows = []
    for row in sorted(result.rows, key=lambda each: each.latency_ms):
        spread = "" if row.deviation is None else f" ± {100 * row.deviation:.1f}"
        cells = [
            row.name,
            str(row.resolution),
            row.beginning,
            f"{100 * row.mean:.1f}{spread}",
            f"{row.latency_ms:.3f}",
            f"{row.p95_ms:.3f}",
            f"{row.params / 1e6:.2f}",
            f"{row.size_bytes / 1e6:.1f}",
        ]
        if with_int8:
            cells += [_percent(row.int8_metric), _shown(row.int8_latency_ms, ".3f")]
        rows.append([*cells, "yes" if row.on_front else "", _ahead(row.ahead)])
    _print_table(header, rows)
    print(
        f"{metric} in %: mean ± deviation of {result.seeds} training(s) of {result.epochs} epochs "
        f"on {result.train_images:,} images, judged on {result.test_images:,}; winner ahead: "
        "points by which the first winner is better, with 95 % interval; ms: median on "
        f"{result.device} in {result.precision}, with the head, all measured in turn"
    )
    if result.doubt:
        print(f"latencies: {result.doubt}")
    for name, other in result.same.items():
        print(f"{name} is the same network as {other}")
    for name, reason in result.left_out.items():
        print(f"left out: {name}: {reason}")
    print()
    for sentence in result.verdicts:
        print(sentence)
    print(f"{result.table_path}\n{result.plot_path}")


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


def _ahead(gap: Difference | None) -> str:
    if gap is None:
        return ""
    half = "" if gap.half is None else f" ± {100 * gap.half:.1f}"
    return f"{100 * gap.mean:+.1f}{half}"


def print_search(result: SearchResult) -> None:
    """Print the winners, with a column for the budget if there are several."""
    bound = ", ".join(result.budgets) or "none given"
    feasible = Count(result.feasible, result.size, result.estimated_from)
    each = ""
    if len(result.feasible_each) > 1:
        each = f", {', '.join(f'{count:,}' for count in result.feasible_each)} within each"
    print(f"{feasible} architectures are within the budgets ({bound}){each}")
    print(f"latencies: {result.latency_of}")
    _print_cannot_run(result)
    winners = result.winners.winners
    device, *further = winners[0].latency_ms
    own = f"predicted{_mark(device, result)}"
    header = ["winner", "architecture", "agreement", "params", "MACs", f"{own} ms"]
    columns = [(device, "predicted")]
    if isinstance(result.latency_budget_ms, list):
        header.append("budget ms")
        columns.append((device, "budget"))
    if result.latency_p95_budget_ms is not None:
        header.append(f"{own} p95")
        columns.append((device, "predicted_p95"))
    header += [f"predicted{_mark(name, result)} ms on {name}" for name in further]
    columns += [(name, "predicted") for name in further]
    rows = [
        [w.name, str(w.architecture), f"{w.agreement:.4f}", f"{w.params:,.0f}", f"{w.macs:,.0f}"]
        + [f"{w.latency_ms[name][figure]:.3f}" for name, figure in columns]
        for w in winners
    ]
    _print_table(header, rows)
    _print_doubts(result)
    _print_confidence(result)
    print(result.plot_path)


def _mark(device: str, result: SearchResult) -> str:
    """Marks predictions from a table that cannot be trusted."""
    return " (?)" if device in result.doubts else ""


def _print_doubts(result: SearchResult) -> None:
    for device, doubt in result.doubts.items():
        print(f"(?) latency table of {device}: {doubt}")


def _print_confidence(result: SearchResult) -> None:
    for winner in result.winners.winners:
        low, high = winner.agreement_interval
        print(f"{winner.name}: agreement {winner.agreement:.4f} ({low:.4f} to {high:.4f})")
    order = "settled" if result.settled else "not settled; a larger search.images may settle it"
    print(f"order of the best candidates by agreement, on {result.images:,} images: {order}")
    for doubt in filter(None, (result.training_doubt, result.ranking_doubt)):
        print(f"warning: {doubt}")


def _print_cannot_run(result: ProfileResult | SearchResult) -> None:
    if result.cannot_run:
        count = Count(result.cannot_run, result.size, result.estimated_from)
        print(f"{count} architectures cannot run on the device and are excluded")


def print_export(result: ExportResult, with_files: bool = True) -> None:
    """Print the latencies of the winners, the replaced candidates and the files."""
    for winner, folder, manifest in zip(
        result.winners.winners, result.folders, result.manifests, strict=True
    ):
        for device, figures in winner.latency_ms.items():
            if "interval" not in figures:  # a further device, which is not measured
                print(f"{winner.name} on {device}: predicted {figures['predicted']:.3f} ms")
                continue
            budgets = (("budget", "budget"), ("budget of the 95th percentile", "budget_p95"))
            within = "".join(
                f", {text} {figures[name]:.3f} ms"
                for text, name in budgets
                if figures[name] is not None
            )
            low, high = figures["interval"]
            print(
                f"{winner.name} on {device}: predicted {figures['predicted']:.3f} ms, measured "
                f"{figures['measured_p50']:.3f} ms ({low:.3f} to {high:.3f}; 95th percentile "
                f"{figures['measured_p95']:.3f}){within}; {figures['latency_of']}"
            )
            for former in winner.replaced:
                measured = former["latency_ms"][device]
                print(
                    f"  replaces {former['name']}, measured at "
                    f"{measured['measured_p50']:.3f} ms (95th percentile "
                    f"{measured['measured_p95']:.3f})"
                )
        if with_files:
            print(f"  {folder}:")
            _print_files(manifest)
        else:
            names = ", ".join(manifest["files"])
            print(
                f"  {folder}: {names} (`edgesearch export` with the same configuration says more)"
            )


def _shown(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _print_files(manifest: dict[str, Any]) -> None:
    """Print a winner's files, how far each differs from the trained network, and on what images."""
    from edgesearch.export.manifest import notes_on

    files = manifest["files"]
    parities = [about.get("parity") or {} for about in files.values()]
    metric = next((each["metric"] for each in parities if each.get("metric")), None)
    judge, key = ("kNN", "knn") if metric is None else (metric.replace("_", " "), "metric")
    header = ["  file", "precision", "max error", "cosine", "as PyTorch"]
    header += [f"{judge} PyTorch", f"{judge} file"]
    rows, notes, judged = [], [], {}
    for name, about in files.items():
        parity = about.get("parity") or {}
        same = parity.get("same_as_pytorch")
        if same is not None:
            same = f"{same * parity['images']:.0f} of {parity['images']}"
        if "predictions" in parity:
            same = f"{parity['same_predictions']:,} of {parity['predictions']:,} boxes"
        if parity.get("knn_images"):
            judged[name] = (parity["knn_train_images"], parity["knn_images"])
        rows.append(
            [
                f"  {name}",
                about.get("precision", "–"),
                _shown(parity.get("max_difference"), ".1e"),
                _shown(parity.get("min_cosine"), ".6f"),
                same or "–",
                _shown(parity.get(f"{key}_before"), ".1%"),
                _shown(parity.get(f"{key}_after"), ".1%"),
            ]
        )
        if "compute_capabilities" in about:
            targets = ", ".join(about["compute_capabilities"])
            ran = "" if parity else "; not run here"
            notes.append(
                f"  {name}: {about['runtime']} {about['runtime_version']} for {targets}{ran}"
            )
    post = manifest.get("post_processing")
    if post is not None:
        notes.insert(0, f"  post-processing: {_post_processing(**post)}")
    notes += [f"  {note}" for note in notes_on(manifest)]
    _print_table(header, rows)
    best = "top class" if manifest["output"] == "logits" else "most similar other image"
    print(f"  as PyTorch: images with the same {best} as in PyTorch; this is no accuracy")
    for apart in dict.fromkeys(each["tolerance"] for each in parities if "tolerance" in each):
        names = ", ".join(n for n, each in files.items() if _tolerance(each) == apart)
        print(
            f"  … boxes: of the same class as in PyTorch, with score and sides (in shares of the "
            f"image) that differ by at most {apart:g} ({names})"
        )
    for images in dict.fromkeys(each["metric_images"] for each in parities if metric and each):
        print(f"  {judge}: on {images:,} test images")
    for train, held_out in dict.fromkeys(judged.values()):
        names = ", ".join(name for name, images in judged.items() if images == (train, held_out))
        print(
            f"  kNN: {manifest['knn_neighbours']} neighbours, {held_out:,} held-out and {train:,} "
            f"training images ({names})"
        )
    if manifest["classifier"] is not None:
        right = manifest["classifier"]
        print(f"  classifier: {right['accuracy']:.1%} of {right['images']:,} held-out images right")
    print(*notes, sep="\n", end="\n" if notes else "")


def _tolerance(about: dict[str, Any]) -> float | None:
    tolerance: float | None = (about.get("parity") or {}).get("tolerance")
    return tolerance


def _post_processing(time: dict[str, Any] | None, **where: str) -> str:
    """Where boxes that overlap are dropped, and what that takes."""
    if where["in"] == "kit":
        return "in the kit, since this runtime's graphs do not hold it; `validate` times it"
    held = "in the graphs of detector.* (subnet.*: the network alone, which budgets mean)"
    if time is None:
        return f"{held}; run.py in the kit times it on the device"
    return (
        f"{held}; on {time['batches']} batches of test images, on this machine, median "
        f"{time['median_ms']:.3f} ms with it, {time['added_ms']:.3f} ms of that for it"
    )


def print_run(result: RunResult, verbose: bool = False) -> None:
    """Print the final comparison and the engines; their files in detail if `verbose`."""
    device = next(iter(result.search.winners.winners[0].latency_ms))
    own = f"predicted{_mark(device, result.search)}"
    header = ["", "agreement", "kNN", "params", "MACs", f"{own} ms", "measured ms", "budget ms"]
    with_p95 = any(row.budget_p95_ms is not None for row in result.summary)
    if with_p95:
        header += [f"{own} p95", "measured p95", "budget p95"]
    _print_table(header, [_summary_row(row, with_p95) for row in result.summary])
    print(f"latencies: {result.search.latency_of}")
    _print_doubts(result.search)
    if result.labelled is not None:
        print(
            f"kNN: accuracy on {result.labelled.test_images:,} held-out images, "
            f"{result.labelled.knn_k} neighbours among {result.labelled.train_images:,} training "
            "images"
        )
    for doubt in filter(None, (result.training_doubt, result.search.ranking_doubt)):
        print(f"warning: {doubt}")
    if result.finetune is not None:
        print()
        print_finetune(result.finetune)
    print()
    print_export(result.export, with_files=verbose)
    print(f"report: {result.report_path}")


def print_report(result: ReportResult) -> None:
    """Print where the page is."""
    print(f"report: {result.report_path}")


def _summary_row(row: SummaryRow, with_p95: bool) -> list[str]:
    latencies = [row.predicted_ms, row.measured_ms, row.budget_ms]
    if with_p95:
        latencies += [row.predicted_p95_ms, row.measured_p95_ms, row.budget_p95_ms]
    return [
        row.name,
        _shown(row.agreement, ".4f"),
        _shown(row.knn, ".1%"),
        _shown(row.params, ",.0f"),
        _shown(row.macs, ",.0f"),
        *(_shown(latency, ".3f") for latency in latencies),
    ]


def print_evaluate(result: EvaluateResult) -> None:
    """Print the accuracies and the images that they were computed on."""
    rows = [
        [
            row.name,
            f"{row.knn:.1%}",
            f"{row.linear:.1%}",
            _shown(row.params, ","),
            _shown(row.macs, ","),
            row.architecture or "–",
        ]
        for row in result.rows
    ]
    _print_table(["", "kNN", "linear", "params", "MACs", "architecture"], rows)
    print(
        f"\naccuracies on {result.test_images:,} held-out images; {result.train_images:,} labeled "
        f"training images (kNN: {result.knn_k} neighbours, T {result.knn_temperature:g})"
    )
    print(result.results_path)


def print_rank(result: RankResult) -> None:
    """Print how well each score ranks the subnets."""
    header = ["score", "tau", "95 %", "within bins", "95 %", "Δ to agreement", "within bins"]
    rows = [
        [
            row.score,
            f"{row.tau.value:.3f}",
            f"{row.tau.low:.3f} to {row.tau.high:.3f}",
            f"{row.within.value:.3f}",
            f"{row.within.low:.3f} to {row.within.high:.3f}",
            f"{row.behind.low:+.3f} to {row.behind.high:+.3f}",
            f"{row.behind_within.low:+.3f} to {row.behind_within.high:+.3f}",
        ]
        for row in result.scores
    ]
    _print_table(header, rows)
    unit = "MACs" if result.latency_of is None else f"predicted latency of the {result.latency_of}"
    low, high = result.accuracies
    print(
        f"\nKendall's tau with the {result.accuracy} accuracy ({low:.1%} to {high:.1%}) of "
        f"{result.subnets} subnets, scored on {result.images:,} images; {len(result.bin_edges)} "
        f"bins by {unit}; the Δ columns are 95 % intervals of the difference"
    )
    print(f"{result.report_path}\n{result.table_path}\n{result.plot_path}")


def print_bench(result: BenchResult) -> None:
    """Print the figures of each engine, and the ratio of two."""
    there = result.fingerprint
    print(f"on {result.device}: {there.gpu or there.chip}; {there.runtime} {there.runtime_version}")
    header = ["", "p50 ms", "interval", "p90", "p95", "p99", "batch", "images/s", "memory", "power"]
    rows = []
    for engine in result.engines:
        timing, usage = engine.timing, engine.usage
        percentiles = (timing.p90_ms, timing.p95_ms, timing.p99_ms)
        rows.append(
            [
                str(engine.path),
                f"{timing.p50_ms:.3f}",
                f"{timing.interval_ms[0]:.3f}–{timing.interval_ms[1]:.3f}",
                *(f"{percentile:.3f}" for percentile in percentiles),
                str(engine.batch),
                f"{engine.images_per_second:,.1f}",
                "–" if usage.memory_bytes is None else f"{usage.memory_bytes / 2**20:,.1f} MiB",
                "–" if usage.power_w is None else f"{usage.power_w:.1f} W",
            ]
        )
    _print_table(header, rows)
    if result.ratio is not None:
        low, high = result.ratio.interval
        print(
            f"\n{result.engines[0].path} takes {result.ratio.ratio:.3f} × the latency of "
            f"{result.engines[1].path} ({low:.3f} to {high:.3f} with 95 % confidence, "
            f"{result.ratio.rounds} rounds)"
        )
    print(result.steadiness)


def print_devices(result: DevicesResult) -> None:
    """Print known devices and this machine; or one device with its setup instructions."""
    width = max(len(device["name"]) for device in result.devices)
    for device in result.devices:
        print(f"{device['name']:{width}}  {device['description'].strip()}")
    if len(result.devices) == 1:
        _print_entries({k: v for k, v in result.devices[0].items() if k not in _APART})
        print(f"setup on the device:\n{indent(result.devices[0]['install'].rstrip(), '  ')}")
        return
    print("detected here:")
    _print_entries({**result.machine, **result.gpu})
    if result.gpu["gpu"] is None:
        print("  gpu: no NVIDIA GPU detected")
    print("runtimes:")
    for runtime in result.runtimes:
        providers = f" ({', '.join(runtime.providers)})" if runtime.providers else ""
        print(f"  {runtime.name}: {runtime.version or runtime.missing}{providers}")
    for hazard in result.hazards:
        print(f"warning: {hazard}")


_APART = ("name", "description", "install")


def _print_entries(entries: dict[str, Any]) -> None:
    for name, value in entries.items():
        if value not in (None, (), 0):
            shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
            print(f"  {name}: {shown}")


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; on a narrow terminal only text columns are folded."""
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False)
    least = natural = -GAP
    for number, column in enumerate(zip(header, *rows, strict=True)):
        is_text = number == 0 or header[number] == "architecture"
        width = max(map(cell_len, column))
        natural += width + GAP
        least += GAP + (min(width, NARROWEST_TEXT) if is_text else width)
        table.add_column(
            Text(header[number]),
            justify="left" if number == 0 else "right",
            no_wrap=not is_text,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*map(Text, row))  # Text is not parsed as markup
    console = Console(highlight=False)
    console.width = max(least, console.width) if console.is_terminal else natural
    console.print(table, crop=False)
