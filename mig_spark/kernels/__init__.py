"""Pure numpy, pyarrow and numba: what executors and the driver compute. Nothing here imports pyspark."""
