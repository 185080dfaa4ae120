"""How large a machine, or a cluster, a load needs: arithmetic from measured costs (docs/scale.md). No Spark, no I/O."""
