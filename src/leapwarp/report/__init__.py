"""What is made of result rows: tables, figures, verdicts, the page and the snapshot. Nothing here imports torch."""
