"""What holds for all tests."""

import signal

# A shell that runs the tests in the background has them ignore Ctrl-C, and so would every process
# that they start: tests of an interruption need the handler that a terminal gives.
signal.signal(signal.SIGINT, signal.default_int_handler)
