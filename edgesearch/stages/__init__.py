"""One file per command: functions of a run that return typed results."""
