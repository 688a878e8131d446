"""Whether the winner was worth it: candidates, latencies in one session, and the verdict."""
