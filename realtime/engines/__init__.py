"""Where the bus keeps its logs, other than in the process."""
