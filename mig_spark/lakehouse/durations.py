"""Times as people say them."""

from __future__ import annotations

import math


def in_words(seconds: float) -> str:
    """0.4 s, 12 s, 3 min 20 s, 2 h 05 min; whole numbers stay whole.

    >>> in_words(0.42), in_words(4), in_words(200.9), in_words(7500), in_words(math.nan)
    ('0.4 s', '4 s', '3 min 20 s', '2 h 05 min', '–')
    """
    if not math.isfinite(seconds):
        return "–"
    if seconds < 10 and not isinstance(seconds, int):
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
    return f"{int(seconds) // 3600} h {int(seconds) % 3600 // 60:02d} min"
