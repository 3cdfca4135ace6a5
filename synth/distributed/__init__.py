"""The same sampler on a Ray cluster."""
