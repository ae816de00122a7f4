"""What went wrong in an executor's Python, told as one line instead of two stack traces."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from mig_spark.errors import MigError

_HEAD = "Traceback (most recent call last):"


@contextlib.contextmanager
def executor_failures(error: type[MigError], what: str) -> Iterator[None]:
    """Raise `error` for an exception that our own code raised in an executor; anything else passes as it is.

    Args:
        error: the class to raise.
        what: what was going on, the beginning of the message.
    """
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JJavaError) as e:
        # after several attempts Spark gives a plain Java error, with Python's words somewhere inside
        said = raised_in_python(str(e))
        if said is None:
            raise
        raise error(f"{what}: {said}") from e


def raised_in_python(text: str) -> str | None:
    """The first line of the last exception of a Python traceback inside a longer text; None where there is none."""
    said, inside = None, False
    for line in text.splitlines():
        if line.rstrip().endswith(_HEAD):
            inside = True
        elif inside and line.strip() and not line[0].isspace():
            said, inside = line.strip().removeprefix("mig_spark.errors."), False
    return said
