"""The run directory: store, keys, provenance, summary."""
