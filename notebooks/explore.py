# Databricks notebook source
# MAGIC %md
# MAGIC # Explore
# MAGIC Which row of the homepage leads to playbacks, how long people take, and what is in quarantine.

# COMMAND ----------

from pyspark.sql import functions as F

from pipelines.notebooks import open_lake, parameters

lake, config = open_lake(parameters(globals()))
attributed = lake.read(lake.attributed)
outcome_time = config.outcome.event_time

# COMMAND ----------

# MAGIC %md ## Attributed or not, by date and by lane

# COMMAND ----------

attributed.groupBy("event_date", "attributed_by").agg(
    F.count("*").alias("outcomes"), F.count("exposure_id").alias("attributed")
).orderBy("event_date", "attributed_by").show()

# COMMAND ----------

# MAGIC %md ## From exposure to outcome, in seconds

# COMMAND ----------

seconds = (F.unix_micros(outcome_time) - F.unix_micros("exposure_time")) / 1e6
attributed.where("exposure_id IS NOT NULL").select(
    *(F.percentile_approx(seconds, share).alias(f"p{share * 100:g}") for share in (0.5, 0.9, 0.95, 0.99))
).show()

# COMMAND ----------

# MAGIC %md ## Quarantine, by reason

# COMMAND ----------

lake.read("quarantine").groupBy("stream", "reason").count().orderBy("stream", "reason").show(truncate=False)
