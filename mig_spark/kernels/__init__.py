"""Pure numpy, pyarrow and numba: what executors and the driver compute. Nothing here imports pyspark."""

from mig_spark.kernels.worker import set_modules_aside

set_modules_aside()
