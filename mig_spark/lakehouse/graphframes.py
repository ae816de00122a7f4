"""Whether GraphFrames can be used in a session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mig_spark.lakehouse.runtime import has_spark_context
from mig_spark.lakehouse.session import graphframes_source

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def lacking_graphframes(spark: SparkSession) -> str | None:
    """What GraphFrames lacks here, and what to do; None where it can be used."""
    if not has_spark_context(spark) or graphframes_source(spark) is None:
        return (
            "the GraphFrames classes cannot be loaded: put its jar on the class path (Spark Connect and serverless "
            "compute have none)"
        )
    try:
        import graphframes  # noqa: F401
    except ImportError as e:
        # runtimes for machine learning bring the classes without the package
        return f"its Python package cannot be imported ({e}): install graphframes-py"
    return None
