"""`python -m mig_spark.cli`."""

from mig_spark.cli import main

main()
