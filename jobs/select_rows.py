"""spark-submit jobs/select_rows.py --config CONFIG.yaml [--set KEY=VALUE ...]

Not named select.py: a script's folder comes first on the path, and would hide the standard library's `select`.
"""

from mig_spark.cli import job

if __name__ == "__main__":
    job("select")
