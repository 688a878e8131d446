"""The command line."""

from edgesearch.cli.main import main

__all__ = ["main"]
