"""The last line of a terminal, for progress."""

from __future__ import annotations

import sys
import threading
from typing import TextIO


class LiveLine:
    """One line of a terminal, written over in place; nothing where the stream is no terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._lock, self._shown = stream, threading.Lock(), False
        self.is_live = bool(getattr(stream, "isatty", lambda: False)())

    def show(self, text: str) -> None:
        """Write the line anew."""
        with self._lock:
            self._stream.write(f"\r\x1b[K{text}")
            self._stream.flush()
            self._shown = True

    def erase(self) -> None:
        """Make room for other output."""
        with self._lock:
            if self._shown:
                self._stream.write("\r\x1b[K")
                self._stream.flush()
                self._shown = False


#: The line of this process; whoever else writes to stderr erases it first.
LINE = LiveLine(sys.stderr)
