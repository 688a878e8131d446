"""One file per command: functions of a run that return typed results.

Each raises `Interrupted` when the user stops it (the same call resumes), and a `UserError` when an
input is missing or does not fit. Commands under `torchrun` also raise `ProcessFailed` when another
process has failed.
"""
