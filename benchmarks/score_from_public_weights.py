"""Which score orders the subnets of a supernet from public weights as their accuracy does?

The supernet of a configuration (its public weights alone with pretrain.epochs=0) gives subnets
spread over its MACs. Each is recalibrated once; its features of all labelled images are kept in
OUTPUT_DIR/score, so that a stopped benchmark goes on. Scores see training images only: those that a
search scores on, and for labels the first N labelled ones. Accuracies are those of the test images.

For each score Kendall's tau with linear and kNN accuracy is printed, over all pairs and over pairs
within bins of equal latency (of equal MACs where OUTPUT_DIR holds no latency table), with 95 %
bootstrap intervals over subnets. Accuracies of few test images are noisy: "a perfect score" is the
tau that the true accuracies would have with the measured ones, from the reliability of two halves
of the test images (within bins), if both are normal.

Target: tau with linear accuracy of at least 0.6 within bins.

Usage: python benchmarks/score_from_public_weights.py CONFIG OUTPUT_DIR [SUBNETS] [KEY=VALUE ...]
(CONFIG with pretrain.init, such as photos_taught; data.root=IMAGES, space.resolutions=[96] …;
SUBNETS for the first of the 60 alone, in a random order)
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from machine import print_machine
from safetensors.torch import load_file, save_file

import edgesearch
from edgesearch.evaluate.knn import knn_predictions
from edgesearch.evaluate.linear import linear_predictions
from edgesearch.evaluate.rank_correlation import RankCorrelation, rank_correlations
from edgesearch.events import Event
from edgesearch.formats.onnx_export import INPUT_NAME, export_network
from edgesearch.latency.load_table import corrected_model, load_table
from edgesearch.search.agreement import images_of_score, make_agreement
from edgesearch.search.label_votes import label_score
from edgesearch.search.similarity import (
    cosine_of_embeddings,
    kernel_alignment,
    regression_on_features,
    relation_of_images,
)
from edgesearch.space import Architecture
from edgesearch.stages.evaluate import make_judge
from edgesearch.stages.rank import spread_subnets
from edgesearch.stages.scorer import foreign_reference, known_references

SUBNETS, BINS, DRAWS = 60, 4, 1000
AT_ONCE = 32
"""Images per pass."""
LABEL_IMAGES = (50, 100, 200, 500, 1000, 2000)
TARGET = 0.6
Tensors = Mapping[str, torch.Tensor]


class Measured:
    """Features and test results of subnets and references, computed on first use."""

    def __init__(self, run: edgesearch.Run, folder: Path) -> None:
        self.folder, self.pool = folder, run.open_images()
        self.judge = make_judge(run, self.pool)
        self.agreement = make_agreement(run.load_weights(), self.pool, run.config.search)
        self.resolution = run.space.largest.resolution
        folder.mkdir(parents=True, exist_ok=True)

    def subnet(self, architecture: Architecture) -> Tensors:
        """Tensors of a subnet, by name.

        `features` (N, D) and `embeddings` (N, E) of training images, and whether each test image is
        classified right, `linear` and `knn` (M,).
        """
        path = self.folder / f"{architecture}.safetensors"
        if not path.exists():
            network = self.agreement.subnet(architecture)
            images = self.judge.images(architecture.resolution)
            train = self._features(network[0], images.train)
            test = self._features(network[0], images.test)
            labels, wanted = images.train_labels, images.test_labels
            knn = knn_predictions(train, labels, test, self.judge.settings.knn_k)
            with torch.inference_mode():
                embeddings = network[1](train)
            self._save(
                path,
                features=train,
                embeddings=embeddings,
                knn=knn == wanted,
                linear=linear_predictions(train, labels, test, self.pool.seed) == wanted,
            )
        return load_as_float(path)

    def reference(self, name: str, network: torch.nn.Sequential) -> Tensors:
        """Features and embeddings of a calibrated network, as above."""
        path = self.folder / f"reference {name}.safetensors"
        if not path.exists():
            features = self._features(network[0], self.judge.images(self.resolution).train)
            with torch.inference_mode():
                self._save(path, features=features, embeddings=network[1:](features))
        return load_as_float(path)

    def _features(self, network: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
        """Features (N, D) of images (N, C, R, R) uint8, by onnxruntime: faster than PyTorch."""
        path, shape = self.folder / "network.onnx", (2, *images.shape[1:])
        export_network(network, path, input_shape=shape, output_names=["features"], open_batch=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        prepare = self.judge.images(self.resolution).prepare
        rows = [
            session.run(None, {INPUT_NAME: prepare(batch).contiguous().numpy()})[0]
            for batch in images.split(AT_ONCE)
        ]
        return torch.from_numpy(np.concatenate(rows))

    def _save(self, path: Path, **tensors: torch.Tensor) -> None:
        partial = path.with_name("partial")
        small = {n: t.half() if t.is_floating_point() else t for n, t in tensors.items()}
        save_file({name: tensor.contiguous() for name, tensor in small.items()}, partial)
        partial.rename(path)


def load_as_float(path: Path) -> Tensors:
    """Tensors of a file, kept in half precision."""
    return {n: t.float() if t.is_floating_point() else t for n, t in load_file(path).items()}


def main() -> None:
    """Compute what is missing, and print the tables."""
    config, output_dir, *rest = sys.argv[1:]
    given = [text for text in rest if "=" in text]
    count = int(next((text for text in rest if "=" not in text), SUBNETS))
    run = edgesearch.Run(config, *given, f"output_dir={output_dir}", report=tell)
    print_machine()
    print(f"score_from_public_weights: {config} {' '.join(given)}", flush=True)
    run.pretrain()
    run.set_threads()
    chosen = spread_subnets(run.space, SUBNETS, 0)
    measured = Measured(run, Path(output_dir) / "score")
    found: list[tuple[Architecture, Tensors]] = []
    with suppress(KeyboardInterrupt):  # prints what is known by then
        for number in np.random.default_rng(0).permutation(len(chosen))[:count]:
            found.append((chosen[number], measured.subnet(chosen[number])))
            tell(Event("score", str(chosen[number]), len(found), count))
    costs, kind = costs_of(run, [architecture for architecture, _ in found])
    bins = np.argsort(np.argsort(costs, kind="stable"), kind="stable") * BINS // len(found)
    scores = scores_of(run, measured, found)
    print(f"{len(found)} subnets of {run.space.name}; {BINS} bins by {kind}")
    for truth in ("linear", "knn"):
        print_scores(truth, torch.stack([each[truth] for _, each in found]), scores, bins)


def costs_of(run: edgesearch.Run, architectures: list[Architecture]) -> tuple[np.ndarray, str]:
    """Predicted latencies, or MACs without a table; and what it is."""
    path = run.files.table(run.device)
    if not path.exists():
        return np.array([run.space.macs(each) for each in architectures]), "MACs"
    model = corrected_model(run.space, load_table(path, run.space, run.device))
    return model.predict_all(run.space.to_digits(architectures)), "predicted latency"


def scores_of(
    run: edgesearch.Run, measured: Measured, found: list[tuple[Architecture, Tensors]]
) -> dict[str, np.ndarray]:
    """All scores of the subnets by name, (subnets,) each."""
    pool, agreement = measured.pool, measured.agreement
    first, count = images_of_score(len(pool.train), run.config.search)
    looked_at = slice(first, first + count)
    key = measured.reference("key", agreement.own_reference())
    references = {"key": key["features"][looked_at]}
    for name in known_references(run):
        other = foreign_reference(run, name, pool, run.report)
        if isinstance(other, torch.Tensor):
            references[name] = other
        else:
            network = agreement.calibrated(other, measured.resolution)
            references[name] = measured.reference(name, network)["features"][looked_at]
    labels = measured.judge.images(measured.resolution).train_labels
    rows: dict[str, list[float]] = {}
    for architecture, tensors in found:
        features, embeddings = (tensors[name][looked_at] for name in ("features", "embeddings"))
        cosine = cosine_of_embeddings(embeddings, key["embeddings"][looked_at])
        own = {"cosine, key": cosine}
        for name, reference in references.items():
            own[f"relation, {name}"] = relation_of_images(features, reference)
            own[f"cka, {name}"] = kernel_alignment(features, reference)
            own[f"regression, {name}"] = regression_on_features(features, reference)
        for number in LABEL_IMAGES:
            if number <= len(labels):
                few = slice(number)
                own[f"{number} labels"] = label_score(tensors["features"][few], labels[few])
        for name, values in own.items():
            rows.setdefault(name, []).append(float(values.double().mean()))
        rows.setdefault("MACs", []).append(float(run.space.macs(architecture)))
        rows.setdefault("parameters", []).append(float(run.space.params(architecture)))
    return {name: np.array(values) for name, values in rows.items()}


def print_scores(
    truth: str, right: torch.Tensor, scores: Mapping[str, np.ndarray], bins: np.ndarray
) -> None:
    """Print the tau of each score with accuracies from `right` (subnets, test images)."""
    accuracies = right.double().mean(dim=1).numpy()
    perfect = tau_of_a_perfect_score(right.double().numpy(), bins)
    low, high, images = accuracies.min(), accuracies.max(), right.shape[1]
    print(f"\n{truth} accuracy on {images} test images, {low:.1%} to {high:.1%}")
    print(f"{'score':24}{'tau':>6}   95 %            {'within bins':>11}   95 %")
    first = [name for name in scores if name.startswith("regression")][-1]
    print(f"the last two columns: tau of {first}, less that of the score")
    ordered = {first: scores[first], **scores}
    for each in rank_correlations(ordered, accuracies, bins, draws=DRAWS):
        print(line(each))
    print(f"{'a perfect score':24}{'':27}{perfect:8.3f}")


def line(found: RankCorrelation) -> str:
    """A row of the table."""
    tau, within = found.tau, found.within
    return (
        f"{found.score:24}{tau.value:6.3f} ({tau.low:6.3f} to {tau.high:6.3f})"
        f"{within.value:11.3f} ({within.low:6.3f} to {within.high:6.3f})"
        f"{found.behind.value:+9.3f} ({found.behind.low:+.3f} to {found.behind.high:+.3f})"
        f"{found.behind_within.value:+9.3f} ({found.behind_within.low:+.3f} to "
        f"{found.behind_within.high:+.3f})"
        f"{'  reached' if within.value >= TARGET else ''}"
    )


def tau_of_a_perfect_score(right: np.ndarray, bins: np.ndarray, draws: int = 200) -> float:
    """Kendall's tau within bins of the true accuracies with those measured on these images.

    Args:
        right: (subnets, images), 1 where an image is classified right.
        bins: (subnets,).
        draws: Number of random halves.
    """
    rng, correlations = np.random.default_rng(0), []
    for _ in range(draws):
        halves = np.array_split(rng.permutation(right.shape[1]), 2)
        first, second = (centred(right[:, half].mean(axis=1), bins) for half in halves)
        correlations.append(np.corrcoef(first, second)[0, 1])
    half = max(0.0, float(np.mean(correlations)))
    whole = 2 * half / (1 + half)  # Spearman and Brown, for twice as many images
    return 2 / math.pi * math.asin(math.sqrt(whole))


def centred(values: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """Values less the mean of their bin."""
    means = np.array([values[bins == each].mean() for each in range(bins.max() + 1)])
    return values - means[bins]


def tell(event: Event) -> None:
    """Show how far it is, away from the results."""
    print(event, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
