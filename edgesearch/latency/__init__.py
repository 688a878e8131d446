"""Latency of every architecture, predicted from a table of blocks."""
