"""spark-submit jobs/export.py --config CONFIG.yaml [--set KEY=VALUE ...]"""

from mig_spark.cli import job

if __name__ == "__main__":
    job("export")
