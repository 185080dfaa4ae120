"""The distribution `rejoin`; what it is stands in pyproject.toml. Here only what that cannot say: conf/ is installed too."""

from pathlib import Path

from setuptools import setup

setup(data_files=[("share/rejoin/conf", sorted(str(path) for path in Path("conf").glob("*.yml")))])
