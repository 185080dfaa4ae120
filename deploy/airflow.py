"""The nightly job of Rejoin, for Airflow 3. Edit: HOME, where checkout and my.yml are on the workers; schedule."""

from datetime import datetime, timezone

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

HOME = "/srv/rejoin"

with DAG("rejoin", schedule="15 3 * * *", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), catchup=False, max_active_runs=1):

    def task(name: str, words: str, **options: str) -> BashOperator:
        return BashOperator(task_id=name, bash_command=f".venv/bin/rejoin {words} --conf my.yml", cwd=HOME, **options)

    settle = task("settle", "settle --all")
    reconcile = task("reconcile", "reconcile --repair")  # fails where differences remain
    maintain = task("maintain", "maintain", trigger_rule="all_done")
    settle >> reconcile >> maintain
