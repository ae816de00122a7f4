"""`mig-spark compare`: two selections beside each other: rows in common, why others are in one alone, and coverage.

found = compare_selections(spark, config, run_id, "random.jsonl")
print(describe_comparison(found))
"""

from mig_spark.compare.collect import compare_selections
from mig_spark.compare.data import Comparison
from mig_spark.compare.page import render_comparison, write_comparison
from mig_spark.compare.words import describe_comparison

__all__ = ["Comparison", "compare_selections", "describe_comparison", "render_comparison", "write_comparison"]
