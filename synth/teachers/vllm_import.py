"""Imports vLLM, which takes ten seconds, after setting what it reads from the environment while it is imported.

A process that will fork may import this first, on a machine without GPUs. Raises what importing vLLM raises.
"""

import os

os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # no usage reports from this tool or its parts

from vllm import LLM

__all__ = ["LLM"]
