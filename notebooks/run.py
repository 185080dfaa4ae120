# Databricks notebook source
# MAGIC %pip install --quiet ..

# COMMAND ----------

# MAGIC %md
# MAGIC # Run
# MAGIC Ingest both streams, join what is on time, settle the rest. `mode`: to the end of what has arrived, or until stopped.

# COMMAND ----------

from pipelines.jobs.run import run_all, run_once
from pipelines.monitor.status import read_status
from pipelines.notebooks import open_lake, open_tables, widgets

given = widgets(dbutils, mode=("available now", "continuous"))
lake, config = open_lake(given)

# COMMAND ----------

if given["mode"] == "continuous":
    run_all(lake, config)
else:
    run_once(lake, config)

# COMMAND ----------

print(read_status(*open_tables(given)).to_text())
