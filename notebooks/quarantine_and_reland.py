# Databricks notebook source
# MAGIC %pip install --quiet ..

# COMMAND ----------

# MAGIC %md
# MAGIC # Quarantine and reland
# MAGIC What was rejected, and why. After a correction of the schema, `reland`: `yes` judges it again and lands what passes.

# COMMAND ----------

from pipelines.jobs.reland import report_reland_quarantine, run_reland_quarantine
from pipelines.notebooks import open_lake, widgets

given = widgets(dbutils, stream="", reland=("no", "yes"))
lake, config = open_lake(given)
waiting = lake.read("quarantine").where("relanded_at IS NULL")

# COMMAND ----------

display(waiting.groupBy("stream", "reason", "detail").count().orderBy("count", ascending=False).limit(100))

# COMMAND ----------

display(waiting.select("stream", "reason", "detail", "payload", "source").limit(20))

# COMMAND ----------

if given["reland"] == "yes":
    for stream in [given["stream"]] if given["stream"] else config.streams:
        print(report_reland_quarantine(stream, *run_reland_quarantine(lake, config, stream, None, None)))
