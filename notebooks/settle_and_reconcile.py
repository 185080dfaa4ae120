# Databricks notebook source
# MAGIC %pip install --quiet ..

# COMMAND ----------

# MAGIC %md
# MAGIC # Settle and reconcile
# MAGIC Nightly: settle every outcome, then compare the table with an independent batch computation. Fails where rows differ.
# MAGIC `dates`: `all`, or one event date (`2026-01-31`).

# COMMAND ----------

from pipelines.jobs.reconcile import run_reconcile
from pipelines.jobs.settle import settle
from pipelines.notebooks import dates, open_lake, widgets
from pipelines.reconcile.report import to_html, to_text

given = widgets(dbutils, dates="all", repair=("no", "yes"))
lake, config = open_lake(given)

# COMMAND ----------

print(settle(lake, config, everything=True).causes)

# COMMAND ----------

result, page = run_reconcile(lake, config, dates(given["dates"]), fix=given["repair"] == "yes")
print(to_text(result))

# COMMAND ----------

displayHTML(to_html(result))
if not result.agrees:
    raise RuntimeError(f"{result.differences} differences remain; see {page}, then run this with repair: yes")
