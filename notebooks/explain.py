# Databricks notebook source
# MAGIC %pip install --quiet ..

# COMMAND ----------

# MAGIC %md
# MAGIC # Explain
# MAGIC Why the row of one outcome is what it is: its events, its row, the exposures that match it, what is open. Reads only.

# COMMAND ----------

from pipelines.monitor.explain import explain
from pipelines.notebooks import open_tables, widgets

given = widgets(dbutils, outcome_id="")

# COMMAND ----------

print(explain(*open_tables(given), given["outcome_id"]))
