# Databricks notebook source
# MAGIC %pip install --quiet ..

# COMMAND ----------

# MAGIC %md
# MAGIC # Explore
# MAGIC What leads to outcomes, how long people take, and how late events are. Reads only.

# COMMAND ----------

from pyspark.sql import functions as F

from pipelines.monitor.lateness import lateness_of
from pipelines.notebooks import open_tables, widgets
from pipelines.reconcile.report.plots import plots

given = widgets(dbutils, position="position")
reader, config = open_tables(given)
attributed = reader.lake.read(f"attributed_{config.stream_name('outcome')}")

# COMMAND ----------

display(attributed.groupBy("event_date", "attributed_by").agg(F.count("*"), F.count("exposure_id")).orderBy("event_date"))

# COMMAND ----------

seconds = (F.unix_micros(config.outcome.event_time) - F.unix_micros("exposure_time")) / 1e6
by_position = attributed.where("exposure_id IS NOT NULL").groupBy(f"exposure_{given['position']}")
display(by_position.agg(F.count("*").alias("outcomes"), F.median(seconds).alias("median_seconds")).orderBy(F.desc("outcomes")))

# COMMAND ----------

for title, hint, drawing in plots([], lateness_of(reader, config), []):
    displayHTML(f"<h4>{title}</h4>{hint}<br>{drawing}")
