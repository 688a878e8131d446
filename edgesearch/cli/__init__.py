"""The command line."""

import sys

try:
    from edgesearch.training.waiting import wait_briefly

    wait_briefly()  # before anything imports torch

    from edgesearch.cli.main import main
except KeyboardInterrupt:  # Ctrl-C within the second that modules take to load
    print("\nstopped", file=sys.stderr)
    sys.exit(130)

__all__ = ["main"]
