"""What labels that are groups of requests are called, see `request_groups.py`; here, since to know them needs none of
what finds groups."""

from __future__ import annotations

#: What the labels of the coarsest level begin with, of the next, and of all others.
FINER = ("requests like", "requests very like", "requests most like")


def is_group(label: str) -> bool:
    """Whether a label is the name of a group, which says how requests are worded and not what they mean.

    >>> is_group("requests like \u201cwrite a story\u201d"), is_group("creative writing")
    (True, False)
    """
    return label.endswith("\u201d") and any(label.startswith(f"{start} \u201c") for start in FINER)
