"""Images of the tasks, prepared once, read by every run."""
