"""One thin script per experiment, runnable by hand: settings, problem, methods, rows."""
