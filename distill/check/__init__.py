"""What `distill check` looks at before anything is spent, and the pilot."""
