"""Life of the processes: supervision and shutdown."""
