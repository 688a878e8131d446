"""Heads: one file each; `edgesearch.tasks.known_tasks` lists them."""
