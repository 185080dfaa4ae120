"""The least that a Spark job with a result costs: a session, and one append of ten rows to a Delta table.

python benchmarks/peers/spark_append.py --out DIR
"""

import argparse

from spark_events import local_session

arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
arguments.add_argument("--out", required=True)
spark = local_session("append", "3g", {})
spark.range(10).write.format("delta").mode("append").save(arguments.parse_args().out)
spark.stop()
