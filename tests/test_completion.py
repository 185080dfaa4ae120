"""Bash completes commands, and names of the configuration."""

import os
import subprocess

import pytest

from tests.processes import REJOIN, ROOT

_SCRIPT = """
source <(_REJOIN_COMPLETE=source_bash rejoin)
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_rejoin_completion rejoin
echo "${COMPREPLY[*]}"
"""


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        (["rec"], "reconcile"),
        (["reland", "pl"], "playbacks"),
        (["accept-gap", "--conf", "conf/ads.yml", ""], "ad_views clicks"),
        (["show", "--conf", "conf/ads.yml", "attr"], "attributed_clicks"),
        (["show", "--conf", "no-such.yml", ""], ""),
    ],
)
def test_bash_completes(typed: list[str], completed: str) -> None:
    path = f"{REJOIN.parent}{os.pathsep}{os.environ['PATH']}"
    words = ["bash", "-c", _SCRIPT, "bash", "rejoin", *typed]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PATH": path}, check=True)
    assert (done.stdout.strip(), done.stderr) == (completed, "")
