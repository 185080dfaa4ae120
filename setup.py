"""The distribution `rejoin`; what it is stands in pyproject.toml. Here only what that cannot say: conf/ is installed too."""

from pathlib import Path

from setuptools import setup

FOLDERS = ("conf", "conf/expectations", "conf/monitoring")

setup(data_files=[(f"share/rejoin/{folder}", sorted(str(path) for path in Path(folder).glob("*.*"))) for folder in FOLDERS])
