"""A run: its configuration, its files, and how its stages are done."""
