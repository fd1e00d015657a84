"""Where clips are measured: a pool of processes here, or Ray Data on a cluster."""
