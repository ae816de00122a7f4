"""What labels that are groups of requests are called, see `request_groups.py`; here, since to know them needs none of
what finds groups."""

from __future__ import annotations

#: What the labels of the coarsest level begin with, of the next, and of the finest.
FINER = ("requests like", "requests very like", "requests most like")


def is_group(label: str) -> bool:
    """Whether a label is the name of a group of requests: such a name tells how they are worded, not what they mean.

    >>> is_group("requests like \u201cwrite a story\u201d"), is_group("creative writing")
    (True, False)
    """
    return label.endswith("\u201d") and any(label.startswith(f"{start} \u201c") for start in FINER)
