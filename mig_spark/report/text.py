"""Turning values into text that is safe in HTML and quiet to read."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from mig_spark.masking import mask_secrets

EXCERPT_CHARS = 280

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def esc(value: Any) -> str:
    """Text for HTML content and quoted attributes; what no reader should meet (control characters) is replaced."""
    return html.escape(clean(str(value)), quote=True)


def clean(text: str) -> str:
    """Without control characters, direction overrides and lone surrogates, which can hide or reorder a page's text."""
    return _BIDI.sub("", _CONTROL.sub("\ufffd", text)).encode("utf-8", "replace").decode("utf-8")


def shortened(text: str, *, limit: int = 36) -> str:
    """The beginning of a text on one line; not escaped."""
    line = " ".join(clean(text).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def excerpt(text: str | None, *, limit: int = EXCERPT_CHARS) -> str:
    """The beginning of a text, cut at a word where there is one near the limit."""
    body = re.sub(r"\n\s*\n\s*", "\n\n", (text or "").replace("\r\n", "\n").strip())
    if len(body) <= limit:
        return body
    cut = body[: limit - 1]
    space = max(cut.rfind(" "), cut.rfind("\n"))
    return (cut[:space] if space > limit * 0.8 else cut).rstrip(" \n.,;:…") + "…"


def count(value: float) -> str:
    """12,034."""
    return f"{value:,.0f}" if math.isfinite(value) else "–"


def percent(share: float | None) -> str:
    """0.1234 as 12.3%; small shares keep a digit, and nothing short of all is called 100%."""
    if share is None or not math.isfinite(share):
        return "–"
    value = 100 * share
    if value in (0, 100) or abs(value) >= 1000:
        return f"{value:,.0f}%"
    if 0 < value < 0.05:
        return "<0.1%" if value >= 0.001 else "<0.001%"
    return f"{min(value, 99.9) if share < 1 else value:.1f}%"


def number(value: float | None, digits: int = 4) -> str:
    """Some significant digits, with thousands separators where they help."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}" if abs(value) < 1e15 else f"{value:.3e}"
    return f"{value:.{digits}g}"


def plural(n: float, one: str, many: str | None = None) -> str:
    """1 row, 2 rows."""
    return f"{count(n)} {one if n == 1 else many or one + 's'}"


def plain(value: Any) -> Any:
    """JSON values only: arrays become lists, numbers keep 6 digits, what is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (float, np.floating)):
        x = float(value)
        if not math.isfinite(x):
            return None
        return int(x) if x == int(x) and abs(x) < 2**53 else float(f"{x:.6g}")
    return int(value) if isinstance(value, np.integer) else value


def script_json(value: Any) -> str:
    """JSON that can stand inside <script>: no `<`, `>` or `&`, so that no data can end the element."""
    text = json.dumps(plain(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def flatten(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Nested mappings as (dotted key, value) pairs in order, secrets masked; of a list of mappings the first three."""
    if isinstance(value, Mapping):
        if not value and prefix:
            return [(prefix, "none")]
        return [pair for k, v in value.items() for pair in flatten(v, f"{prefix}.{k}" if prefix else str(k))]
    if isinstance(value, (list, tuple)) and any(isinstance(v, Mapping) for v in value):
        if len(value) == 1:
            return flatten(value[0], prefix)
        start = f"{prefix}." if prefix else ""
        shown = [pair for i, v in enumerate(value[:3], 1) for pair in flatten(v, f"{start}{i}")]
        return shown + ([(f"{start}…", f"{len(value) - 3:,} more")] if len(value) > 3 else [])
    return [(prefix, mask_secrets(value, key=prefix))]
