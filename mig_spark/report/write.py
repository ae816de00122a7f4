"""Putting the report's text where it is to stand."""

from __future__ import annotations

import os

from mig_spark.lakehouse.files import local_path, new_file


def write_report(text: str, path: str | os.PathLike[str]) -> str:
    """Write the report to a local path or a URI such as `s3://bucket/folder/report.html`; an older one is replaced.

    Returns:
        The path as it was written to.

    Raises:
        InputError: the place cannot be written to.
    """
    with new_file(path) as out:
        out.write(text.encode("utf-8"))
    return local_path(path)
