"""The pipeline and one file for each stage."""
