"""What one event, row or run costs: the one place to update after `make bench`.

Processor time is in microseconds of one core of the machine that it was measured on (2 cores; Python 3.11, Java 17, pyspark
4.2.0, delta-spark 4.4.0): the time that passed, times its 2 cores; so an upper bound. Sources, by their names below:

- *W1*: the bench's workload (5,030,152 impressions and 502,952 playbacks from two Kafka topics of 2 partitions each, 12 hours of
  event time), all of it through the join's state (`trigger.settle_backlog_bytes: null`), with RocksDB; what its ledger says.
  docs/scale.md has those rows.
- *settle_cost*: benchmarks/settle_cost.py, which has the state in memory.
- *FACTS*: the measurements that the design began with; docs/scale.md has those used here.
- *estimate*: not measured; what it follows from is said.
"""

from dataclasses import dataclass, replace
from typing import Literal

Provider = Literal["rocksdb", "memory"]


@dataclass(frozen=True, kw_only=True)
class StateCosts:
    """Of one state store provider. `us_per_event` is reading, inserting, probing, later removing an event, and its share of the
    sink's work. `bytes_per_row` are where the provider keeps rows: on local disk (rocksdb), on the heap (memory)."""

    us_per_event: float
    scan_us_per_row: float
    bytes_per_row: float
    rows_per_partition: int


# W1: 273 core-seconds for 5.5 M events; less 65 of scans and 12 of what is fixed, 35 us each. FACTS: 33 k events/s with 0.5 M
# rows of state and 22.6 k with 2.9 M solve to 55 us an event, 46 of them not fixed, and 2.6 us a row. W1: a micro-batch without
# events over 5,503,126 rows took 6.5 s, so 2.4 us a row at most.
# Bytes: W1's SST files of version 4, by their metadata: 412 MB for 5,503,126 rows, compressed. Not the ledger's `state_bytes`
# (93 MB then), which are RocksDB's memory. Partitions: W1 had 2.75 M rows in each of 2; more has not been tried.
_ROCKSDB = StateCosts(us_per_event=40.0, scan_us_per_row=2.5, bytes_per_row=75.0, rows_per_partition=3_000_000)

# settle_cost: 112 core-seconds to join 5.5 M events, and 18 to evict 5.2 M of them. Scan: estimate; FACTS' 92 and 109 k events/s
# leave 1.0 core-seconds a micro-batch for the scan of half a million rows and all that is fixed: half of that is the scan.
# Bytes: FACTS (settle_cost: 309, with a single version retained).
_MEMORY = StateCosts(us_per_event=24.0, scan_us_per_row=1.0, bytes_per_row=700.0, rows_per_partition=3_000_000)


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Units are in the names; `us` are microseconds of one core."""

    rocksdb: StateCosts = _ROCKSDB
    memory: StateCosts = _MEMORY

    # W1: a million records took 7.2 to 7.5 s of two cores, 15 us each; by the processor time of the process it is 20 to 24.
    ingest_us_per_event: float = 20.0
    # W1: 30,156 records took 2.0 s. The join's micro-batches of next to nothing: 1.0 to 3.8 s, the first of a process the most.
    fixed_seconds_per_batch: float = 2.0
    # settle_cost: 9.8 s for 1,000 outcomes, of which the look-up is little.
    fixed_seconds_per_settle: float = 10.0
    # settle_cost: 12.0 s for 100,000 outcomes, 9.8 s for 1,000.
    settle_us_per_outcome: float = 44.0
    # Estimate. FACTS: a look-up over 2.6 M exposures took 0.1 s longer than over 0.2 M. That is 0.08 us, and within its noise;
    # thrice as much is taken.
    probe_us_per_row: float = 0.25
    # W1: settling 499,749 outcomes against 5,022,591 exposures took 27 s of two cores; less what is fixed, and what outcomes
    # cost.
    shuffle_us_per_row: float = 2.5
    # Up to so many outcomes in a run their keys are sent to the exposures (_FEW in pipelines/settle/lookup.py); of more, the
    # exposures are shuffled.
    settle_broadcast_outcomes: int = 200_000
    # Estimate. A MERGE compares its rows with all of their event dates, as a look-up does: by broadcast up to Spark's 10 MB, else
    # shuffled.
    merge_broadcast_rows: int = 50_000
    # Estimate. One task writes a partition of the output (Delta's merge.repartitionBeforeWrite): Parquet, some 50 bytes a row.
    write_us_per_row: float = 5.0
    # W1: late exposures 0.43 %, outcomes that they touched 1.72 %: each per cent of lateness touches 4 % of the outcomes.
    touched_per_late: float = 4.0

    # W1: bytes by rows. JSON is what the topics were given; Parquet is snappy, as Delta writes it by default.
    exposure_json_bytes: float = 202.5
    outcome_json_bytes: float = 160.5
    exposure_bronze_bytes: float = 31.2
    outcome_bronze_bytes: float = 30.4
    attributed_bytes: float = 47.3
    # Delta's own default for OPTIMIZE.
    optimized_file_bytes: int = 2**30
    # W1: 94 MB of memory in 8 instances (2 sides, 2 stores each, 2 partitions).
    rocksdb_bytes_per_store: float = 12e6
    stores_per_partition: int = 4
    # Estimate. benchmarks/kafka_backlog.py stays below 3.4 GiB resident on 2 cores with a heap of 1 GiB.
    memory_bytes_per_core: int = 2 * 2**30

    def state(self, provider: Provider) -> StateCosts:
        return self.rocksdb if provider == "rocksdb" else self.memory

    def at_speed(self, core_speed: float) -> "Costs":
        """With cores so many times as fast. What is fixed stays: most of it is waiting for storage."""
        names = [name for name in self.__dataclass_fields__ if "_us_per_" in name]
        faster = {name: getattr(self, name) / core_speed for name in names}
        return replace(self, rocksdb=_faster(self.rocksdb, core_speed), memory=_faster(self.memory, core_speed), **faster)


def _faster(state: StateCosts, speed: float) -> StateCosts:
    return replace(state, us_per_event=state.us_per_event / speed, scan_us_per_row=state.scan_us_per_row / speed)


MEASURED = Costs()
