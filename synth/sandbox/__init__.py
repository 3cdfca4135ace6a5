"""The sandbox that runs programs written by a model."""
