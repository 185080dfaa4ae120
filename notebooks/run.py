# Databricks notebook source
# MAGIC %md
# MAGIC # Run
# MAGIC Drain what has arrived: ingest both streams, join what is on time. Parameters: `conf`, `set` (one `key=value` a line).
# MAGIC As a job, schedule it every few minutes, or use `run_all` for one that never ends.

# COMMAND ----------

from pipelines.jobs.ingest import ingest
from pipelines.jobs.join import join
from pipelines.notebooks import open_lake, parameters

lake, config = open_lake(parameters(globals()))

# COMMAND ----------

ingest(lake, config, once=True)

# COMMAND ----------

join(lake, config, once=True)

# COMMAND ----------

from pipelines.lake.reader import SparkReader
from pipelines.monitor.status import read_status

print(read_status(SparkReader(lake), config).to_text())
