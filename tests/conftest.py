"""What holds for all tests."""

import os
import signal
import tempfile

# A shell that runs the tests in the background has them ignore Ctrl-C, and so would every process
# that they start: tests of an interruption need the handler that a terminal gives.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Exports are cached for all tests of a run, and never among the user's own.
_cache = tempfile.TemporaryDirectory(prefix="edgesearch-tests-")
os.environ["EDGESEARCH_CACHE"] = _cache.name
