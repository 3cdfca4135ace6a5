"""Training: one file for each algorithm."""
