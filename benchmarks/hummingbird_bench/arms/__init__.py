"""Programs that a benchmark starts: each runs one arm in a process of its own."""
