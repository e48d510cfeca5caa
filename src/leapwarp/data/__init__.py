"""Images of the tasks, which are prepared once and read by every run."""
