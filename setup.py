"""Names the packages; everything else is in pyproject.toml.

Here because pyproject.toml can map ``recipes/`` to ``distill/recipes`` only beside a list of every package by hand.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["licensing*", "synth*", "publish*", "distill*"]), "distill.recipes"],
    package_dir={"distill.recipes": "recipes"},
)
