"""JSON over HTTP from an executor: kept-alive connections, a rate limit, retries that respect the server.

The standard library's client does it: executors need no package for it, and one POST is all that is asked for.
"""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import json
import random
import ssl
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

#: statuses that say "not now": time-out, conflict, too many requests, and every 5xx
TRANSIENT = (408, 409, 425, 429)
#: statuses that every further request would get too: no key, no right, no such model or address
FATAL = (401, 403, 404)
_LONGEST_WAIT = 300.0
_SHOWN = 300


@dataclass(frozen=True)
class Reply:
    """What came of one try: the JSON object of a 200, or the error and whether another try may help.

    `wait`: seconds that the server asked to wait.
    """

    data: Mapping[str, Any] | None = None
    error: str | None = None
    transient: bool = False
    fatal: bool = False
    wait: float | None = None


class RateLimit:
    """A token bucket, shared by the threads of a task: `rate` requests a second, bursts of at most one second."""

    def __init__(self, rate: float | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock, self._lock = rate, clock, threading.Lock()
        self._tokens, self._at, self._closed_until = 1.0, clock(), 0.0

    def take(self) -> float:
        """Take a token; the seconds to wait before it may be used."""
        with self._lock:
            now = self._clock()
            pause = max(0.0, self._closed_until - now)
            if self._rate is None:
                return pause
            self._tokens = min(max(1.0, self._rate), self._tokens + (now - self._at) * self._rate) - 1.0
            self._at = now
            return max(pause, -self._tokens / self._rate)

    def close_for(self, seconds: float) -> None:
        """Let nobody through for so long: the server has asked for it."""
        with self._lock:
            self._closed_until = max(self._closed_until, self._clock() + seconds)


@dataclass
class Poster:
    """POSTs JSON to one address over one kept-alive connection a thread.

    Attributes:
        url: http(s) address.
        key: goes out as the bearer token, or as it is under another header's name; never shown.
        timeout: seconds to connect, and for each wait for bytes.
    """

    url: str
    key: str | None = field(default=None, repr=False)
    key_header: str = "Authorization"
    timeout: float = 60.0
    _local: threading.local = field(default_factory=threading.local, repr=False)

    def post(self, body: bytes) -> Reply:
        """One try."""
        fresh = getattr(self._local, "connection", None) is None
        try:
            status, headers, data = self._exchange(body)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as e:
            self._close()
            # a server may close an idle connection at any time: that is no fault, unless the connection was new
            cut = f"the connection was cut ({type(e).__name__})"
            return Reply(error=cut, transient=True, wait=None if fresh else 0.0)
        except TimeoutError:
            self._close()
            return Reply(error=f"no answer in {self.timeout:g} s", transient=True)
        except (OSError, http.client.HTTPException, ssl.SSLError) as e:
            self._close()
            return Reply(error=self._scrub(f"{type(e).__name__}: {e}"), transient=True)
        if status == 200:
            with contextlib.suppress(ValueError):
                found = json.loads(data)
                if isinstance(found, dict):
                    return Reply(data=found)
            return Reply(error="the server said 200 and sent something that is no JSON object", transient=True)
        text = self._scrub(" ".join(data.decode("utf-8", "replace").split())[:_SHOWN])
        transient = status in TRANSIENT or status >= 500
        return Reply(
            error=f"HTTP {status}" + (f": {text}" if text else ""),
            transient=transient,
            fatal=status in FATAL,
            wait=retry_after(headers.get("Retry-After")) if transient else None,
        )

    def _exchange(self, body: bytes) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = self._connection()
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "mig-spark"}
        if self.key:
            headers[self.key_header] = f"Bearer {self.key}" if self.key_header == "Authorization" else self.key
        parts = urllib.parse.urlsplit(self.url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", target, body=body, headers=headers)
        response = connection.getresponse()
        data = response.read()
        if response.will_close:
            self._close()
        return response.status, response.headers, data

    def _connection(self) -> http.client.HTTPConnection:
        kept = getattr(self._local, "connection", None)
        if kept is None:
            kept = self._local.connection = _connect(self.url, self.timeout)
        return kept

    def _close(self) -> None:
        kept = getattr(self._local, "connection", None)
        if kept is not None:
            kept.close()
            self._local.connection = None

    def _scrub(self, text: str) -> str:
        # some servers repeat the key in what they say of it
        return text.replace(self.key, "***") if self.key else text


def _connect(url: str, timeout: float) -> http.client.HTTPConnection:
    parts = urllib.parse.urlsplit(url)
    secure, host = parts.scheme == "https", parts.hostname or ""
    port = parts.port or (443 if secure else 80)
    if not secure:
        # plain http is a server next door, which no proxy leads to
        return http.client.HTTPConnection(host, port, timeout=timeout)
    proxy = None if urllib.request.proxy_bypass(host) else urllib.request.getproxies().get("https")
    if not proxy:
        return http.client.HTTPSConnection(host, port, timeout=timeout)
    via = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    connection = http.client.HTTPSConnection(via.hostname or "", via.port or 3128, timeout=timeout)
    connection.set_tunnel(host, port)
    return connection


def retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header (seconds, or an HTTP date) asks for; at most five minutes."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (TypeError, ValueError):
            return None
    return min(max(0.0, seconds), _LONGEST_WAIT) if seconds == seconds else None


def backoff(tries: int, *, base: float, longest: float) -> float:
    """Seconds to wait after so many failed tries: full jitter, so that tasks that failed together do not come back
    together."""
    return random.SystemRandom().uniform(0.0, min(longest, base * 2.0 ** (tries - 1)))
