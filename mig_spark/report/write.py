"""Putting the report's text where it is to stand."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mig_spark.lakehouse.files import local_path, new_file

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def write_report(text: str, path: str | os.PathLike[str], spark: SparkSession | None = None) -> str:
    """Write the report to a local path or a URI such as `s3://bucket/folder/report.html`; an older one is replaced.

    Args:
        spark: the session whose file systems and credentials count.

    Returns:
        The path as it was written to.

    Raises:
        InputError: the place cannot be written to.
    """
    with new_file(path, spark) as out:
        out.write(text.encode("utf-8"))
    return local_path(path)
