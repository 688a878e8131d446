"""Mobile networks of universal inverted bottlenecks."""
