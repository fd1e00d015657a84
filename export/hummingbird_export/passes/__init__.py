"""Graph passes: one file each; ``pattern, check, rewrite``, and the number of times it fired."""
