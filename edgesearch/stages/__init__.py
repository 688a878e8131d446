"""The commands, a file each: functions of a run that return typed results."""
