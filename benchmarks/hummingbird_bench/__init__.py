"""Measures clips and speed. Imports the runtime only; other engines run as child processes."""
