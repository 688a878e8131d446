"""Whether two domains want different architectures within one budget.

Two searches with the same configuration and the same supernet, each with images of its own, have
to be finished. Each domain's winner is scored on both domains, image by image.

Usage: python benchmarks/two_domains.py CONFIG OUTPUT_DIR ROOT OTHER_OUTPUT_DIR OTHER_ROOT
[KEY=VALUE]…
"""

from __future__ import annotations

import sys
from typing import Any

from machine import print_machine

from edgesearch.cli.stages import search_arguments
from edgesearch.config import load_config
from edgesearch.data.image_pool import ImagePool
from edgesearch.inputs import digest_of
from edgesearch.run.layout import Layout
from edgesearch.search.agreement import Agreement
from edgesearch.search.ranking import compare_domains
from edgesearch.search.scoring import make_agreement
from edgesearch.search.winners import Winners
from edgesearch.space import Architecture
from edgesearch.supernet.weights import SupernetWeights


def main() -> None:
    """Print the winners and the verdict."""
    if len(sys.argv) < 6:
        raise SystemExit(__doc__)
    config, first, first_root, second, second_root, *overrides = sys.argv[1:]
    arguments = [
        search_arguments(
            load_config(config, [f"output_dir={out}", f"data.root={root}", *overrides])
        )
        for out, root in ((first, first_root), (second, second_root))
    ]
    weights = {digest_of(Layout(a["output_dir"]).weights, "pretrain") for a in arguments}
    if len(weights) > 1:
        raise SystemExit("the two searches used different supernets")
    print_machine()
    (winner, agreement), (other_winner, other_agreement) = map(of_domain, arguments)
    print(compare_domains(agreement.scores, other_agreement.scores, (winner, other_winner)))


def of_domain(arguments: dict[str, Any]) -> tuple[Architecture, Agreement]:
    """The winner of a domain, and the score on its images, as many as the search may look at."""
    space, layout = arguments["space"], Layout(arguments["output_dir"])
    winner = Winners.load(layout.winners, space).winners[0]
    print(
        f"{arguments['images'].root}: {winner.architecture}, agreement {winner.agreement:.5f} on "
        f"{winner.agreement_images} images, interval {winner.agreement_interval}"
    )
    agreement = make_agreement(
        SupernetWeights.load(layout.weights, space),
        ImagePool(arguments["images"], space.in_channels, arguments["seed"]),
        arguments["looked_at"],
        arguments["scored_by"],
    )
    return winner.architecture, agreement


if __name__ == "__main__":
    main()
