"""`python -m edgesearch` is the command line."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Python puts the current folder first, where a user's file may have the name of a module.
    is_first = not getattr(sys.flags, "safe_path", False)
    if is_first and Path(sys.path[0]) != Path(__file__).parents[1]:
        del sys.path[0]

    from edgesearch.cli import main

    main()
