"""spark-submit jobs/screen.py --config CONFIG.yaml [--set KEY=VALUE ...]"""

from mig_spark.cli import job

if __name__ == "__main__":
    job("screen")
