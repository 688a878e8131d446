"""Whether two domains want different architectures within one budget.

Two searches with the same configuration and the same supernet, each with images of its own, have
to be finished. Each domain's winner is scored on both domains, image by image.

Usage: python benchmarks/two_domains.py CONFIG OUTPUT_DIR ROOT OTHER_OUTPUT_DIR OTHER_ROOT
[KEY=VALUE]…
"""

from __future__ import annotations

import sys

from machine import print_machine

import edgesearch
from edgesearch.search.agreement import Agreement, make_agreement
from edgesearch.search.ranking import compare_domains
from edgesearch.search.winners import Winners
from edgesearch.space import Architecture


def main() -> None:
    """Print the winners and the verdict."""
    if len(sys.argv) < 6:
        raise SystemExit(__doc__)
    config, first, first_root, second, second_root, *overrides = sys.argv[1:]
    runs = [
        edgesearch.Run(config, f"output_dir={out}", f"data.root={root}", *overrides)
        for out, root in ((first, first_root), (second, second_root))
    ]
    if len({run.weights_digest() for run in runs}) > 1:
        raise SystemExit("the two searches used different supernets")
    print_machine()
    (winner, agreement), (other_winner, other_agreement) = map(of_domain, runs)
    print(compare_domains(agreement.scores, other_agreement.scores, (winner, other_winner)))


def of_domain(run: edgesearch.Run) -> tuple[Architecture, Agreement]:
    """The winner of a domain, and the score on its images, as many as the search may look at."""
    winner = Winners.load(run.files.winners, run.space).winners[0]
    print(
        f"{run.config.data.root}: {winner.architecture}, agreement {winner.agreement:.5f} on "
        f"{winner.agreement_images} images, interval {winner.agreement_interval}"
    )
    agreement = make_agreement(run.load_weights(), run.open_images(), run.config.search)
    return winner.architecture, agreement


if __name__ == "__main__":
    main()
