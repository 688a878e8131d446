"""`python -m edgesearch` is the command line."""

from edgesearch.cli import main

if __name__ == "__main__":
    main()
