"""What the site needs beyond the pages as they are: a hook of mkdocs, named in mkdocs.yml."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)#]+)(#[^)]*)?\)")
#: What a browser would fetch by itself; links that a reader follows are another matter.
_FETCHED = re.compile(r"""<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=["']?((?:https?:)?//[^"'>\s]+)""")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Links to files outside of docs/, which the site does not have, become the file's name in the repository.

    Raises:
        PluginError: there is no such file.
    """
    root = Path(config.config_file_path).parent

    def named(match: re.Match[str]) -> str:
        text, path, _ = match.groups()
        if not (root / path).exists():
            raise PluginError(f"{page.file.src_uri} links to ../{path}, and the repository has no such file")
        return f"`{path}` in the repository" if text == path else f"{text} (`{path}` in the repository)"

    return _OUTSIDE.sub(named, markdown)


def on_post_page(output: str, *, page: Any, **_: Any) -> None:
    """See that the page loads nothing from elsewhere.

    Raises:
        PluginError: it does.
    """
    if found := _FETCHED.findall(output):
        raise PluginError(f"{page.file.src_uri} would load {found[0]}: the site has to work without network")
