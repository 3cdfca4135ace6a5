"""Sampling: policy, sampler, request identity, budget and the sample store."""
