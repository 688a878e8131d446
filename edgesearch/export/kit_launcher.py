"""Run the engine beside this file on images: `python run.py IMAGE ...`.

Checks that Python and its packages are those that manifest.json requires, then starts program.py.
Versions before Python 3.8 read this file as well, 2.7 included.
"""

import importlib
import json
import os
import re
import runpy
import shlex
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAM = os.path.join(HERE, "program.py")
MODULES = (("numpy", "numpy", "numpy"), ("Pillow", "PIL", "PIL.Image"))
"""Packages, their modules with the version, and the modules that are used."""


def numbers(version):
    # type: (str) -> list[int]
    """The first two numbers of a version."""
    return [int(number) for number in re.findall(r"\d+", version)[:2]]


def refuse(required, found, remedy):
    # type: (str, str, str) -> None
    """Print an error and exit."""
    lines = ("error: required: " + required, "  found: " + found, "  " + remedy, "")
    sys.stderr.write("\n".join(lines))
    sys.exit(2)


def check():
    # type: () -> None
    """Compare Python and its packages with the manifest."""
    try:
        with open(os.path.join(HERE, "manifest.json"), "rb") as file:
            least = json.loads(file.read().decode("utf-8"))["least_versions"]
        if not os.path.exists(PROGRAM):
            raise ValueError("program.py is missing")
    except Exception as error:  # its types differ between versions of Python
        refuse("a complete kit in " + HERE, str(error), "Unpack kit.zip again.")
    python = sys.version.split()[0]
    if numbers(python) < numbers(least["python"]):
        found = python + " (" + sys.executable + ")"
        refuse("Python " + least["python"] + " or newer", found, "Start run.py with a newer one.")
    for package, module, used in MODULES:
        required = package + " " + least[package] + " or newer for " + sys.executable
        command = [sys.executable, "-m", "pip", "install", package + ">=" + least[package]]
        remedy = "Install it: " + " ".join(map(shlex.quote, command))
        try:
            importlib.import_module(used)
            found = str(sys.modules[module].__version__)
        except Exception as error:  # a broken installation may raise anything
            refuse(required, str(error).strip().split("\n")[0], remedy)
        if numbers(found) < numbers(least[package]):
            refuse(required, found, remedy)


if __name__ == "__main__":
    check()
    runpy.run_path(PROGRAM, run_name="__main__")
