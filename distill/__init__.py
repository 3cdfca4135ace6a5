"""A recipe goes in, a fully open release comes out. Read ``distill/stages/pipeline.py`` first."""

__version__ = "0.1.0"
