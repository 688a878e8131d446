"""From a table of blocks to the latency of every architecture."""
