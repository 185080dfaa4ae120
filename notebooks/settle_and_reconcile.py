# Databricks notebook source
# MAGIC %md
# MAGIC # Settle and reconcile
# MAGIC Nightly: settle late, unmatched and missing outcomes from the lake, then compare the table with an independent batch
# MAGIC computation. The notebook fails where differences remain, so that the job does. Widgets: `dates` (`all` or `2026-01-31`),
# MAGIC `repair` (`yes`), beside those of every notebook.

# COMMAND ----------

from pipelines.jobs.reconcile import run_reconcile
from pipelines.jobs.settle import settle
from pipelines.notebooks import open_lake, parameters, reconcile_options
from pipelines.reconcile.report import to_html, to_text

lake, config = open_lake(parameters(globals()))

# COMMAND ----------

print(settle(lake, config).causes)

# COMMAND ----------

result, page = run_reconcile(lake, config, **reconcile_options(globals()))
print(to_text(result))

# COMMAND ----------

if "displayHTML" in globals():
    displayHTML(to_html(result))

# COMMAND ----------

if not result.agrees:
    raise RuntimeError(f"{result.differences} differences remain; see {page}, then `rejoin reconcile --repair`")
