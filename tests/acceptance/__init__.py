"""Black-box scripts: the wheel in a fresh environment, the command line and sockets, nothing else."""
