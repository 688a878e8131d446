"""A run: its configuration, its files and the stage runner."""
