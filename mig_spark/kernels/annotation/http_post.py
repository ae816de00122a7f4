"""JSON over HTTP from an executor: one request, bounded in time and in bytes, whatever the server does.

httpx2 (httpx as it is maintained now) keeps connections alive, reads HTTP strictly, checks TLS by the system's list and
goes through proxies. What it lacks is a limit on a whole request, so a request runs in an event loop under a deadline,
and its answer is read in pieces up to a limit. The transport is used without the client on top of it: no redirect is
followed, no cookie kept, nothing unpacked.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import math
import random
import time
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mig_spark.scrub import scrub

if TYPE_CHECKING:
    import ssl

    import httpx2

#: statuses that say "not now": time-out, conflict, too many requests, and every 5xx
TRANSIENT = (408, 409, 425, 429)
#: statuses that every further request would get too: no key, no right, no such model or address
FATAL = (401, 403, 404)
#: of these, what a gateway may say of one row alone (a filter of contents), where it has answered others
OF_ONE_ROW = (403, 404)
_LONGEST_WAIT = 300.0
_SHOWN = 300
#: of an answer that is an error no more is read
_ERROR_BYTES = 64 * 1024
_MOST_DIGITS = 18


@dataclass(frozen=True)
class Reply:
    """The outcome of one try.

    Attributes:
        data: the JSON object of a 200; None where there is none.
        error: what went wrong.
        transient: another try may help.
        fatal: every further request would fail in the same way.
        may_cost: the server may have worked for it, and want to be paid, though there is no answer to read: the request
            went out, and then no reply came, or only a part of one, or one that is too long.
        wait: seconds that the server asked to wait.
        status: of HTTP; None where no answer came.
    """

    data: Mapping[str, Any] | None = None
    error: str | None = None
    transient: bool = False
    fatal: bool = False
    may_cost: bool = False
    wait: float | None = None
    status: int | None = None


class ProxyError(ValueError):
    """The proxy that the environment names cannot be used."""


class RateLimit:
    """A token bucket for the requests of a task: `rate` requests a second, bursts of at most one second's worth."""

    def __init__(self, rate: float | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._tokens, self._at, self._closed_until = 1.0, clock(), 0.0

    def take(self) -> float:
        """Take a token and return the seconds to wait before sending."""
        now = self._clock()
        pause = max(0.0, self._closed_until - now)
        if self._rate is None:
            return pause
        self._tokens = min(max(1.0, self._rate), self._tokens + (now - self._at) * self._rate) - 1.0
        self._at = now
        return max(pause, -self._tokens / self._rate)

    def close_for(self, seconds: float) -> None:
        """Send nothing for so many seconds, as the server asked."""
        self._closed_until = max(self._closed_until, self._clock() + seconds)


@dataclass(frozen=True)
class Poster:
    """Sends requests to one address, and reads JSON.

    Attributes:
        url: http(s) address.
        key: sent as the bearer token, or bare under another header's name; never shown.
        timeout: seconds for a request, from connecting to the last byte of the answer.
        max_bytes: of an answer; reading a longer one is stopped, and it is an error.
    """

    url: str
    key: str | None = field(default=None, repr=False)
    key_header: str = "Authorization"
    timeout: float = 60.0
    max_bytes: int = 4 * 2**20

    @contextlib.asynccontextmanager
    async def connection(self, tls: ssl.SSLContext) -> AsyncIterator[httpx2.AsyncHTTPTransport]:
        """A connection for one request at a time, kept alive until the end of the `with` block.

        A pool of connections for all requests under way would look at each of them before every request.

        Args:
            tls: from `httpx2.create_ssl_context`, which takes long to make.

        Raises:
            ProxyError: the proxy that the environment names cannot be used.
        """
        import httpx2

        try:
            one = httpx2.Limits(max_connections=1, max_keepalive_connections=1)
            transport = httpx2.AsyncHTTPTransport(verify=tls, proxy=_proxy(self.url), limits=one)
        except (ImportError, ValueError, httpx2.InvalidURL):
            raise ProxyError("the proxy that HTTPS_PROXY names cannot be used: give http://host:port") from None
        async with transport:
            yield transport

    async def send(self, connection: httpx2.AsyncHTTPTransport, body: bytes | None) -> Reply:
        """Send the request once; without a body it is a GET. Every failure is told in the reply; nothing is raised."""
        import httpx2

        went = False

        async def see(event: str, _: Mapping[str, Any]) -> None:
            nonlocal went
            went = went or event.endswith("send_request_body.complete")

        try:
            status, wait, data = await asyncio.wait_for(self._exchange(connection, body, see), self.timeout)
        except (asyncio.TimeoutError, httpx2.TimeoutException):
            return Reply(error=f"no answer in {self.timeout:g} s", transient=True, may_cost=went)
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, OSError, ValueError, RuntimeError) as e:
            cause = _root(e)
            # what a proxy was sent went no further
            paid = went and not isinstance(e, httpx2.ProxyError)
            return Reply(error=shown(f"{type(cause).__name__}: {cause}"), transient=True, may_cost=paid)
        if status == 200:
            if len(data) > self.max_bytes:
                # it was paid for, and the next one would be as long
                said = f"the answer is longer than {self.max_bytes} bytes (max_response_bytes)"
                return Reply(error=said, may_cost=True, status=status)
            found = read_json(data)
            if found is not None:
                return Reply(data=found, status=status)
            said = "the server said 200 and sent something that is no JSON object"
            return Reply(error=said, transient=True, status=status)
        text = shown(data.decode("utf-8", "replace"))
        transient = status in TRANSIENT or status >= 500
        return Reply(
            error=f"HTTP {status}" + (f": {text}" if text else ""),
            transient=transient,
            fatal=status in FATAL,
            wait=retry_after(wait) if transient else None,
            status=status,
        )

    async def _exchange(
        self,
        connection: httpx2.AsyncHTTPTransport,
        body: bytes | None,
        see: Callable[[str, Mapping[str, Any]], Awaitable[None]],
    ) -> tuple[int, str | None, bytes]:
        import httpx2

        headers = {
            **({} if body is None else {"Content-Type": "application/json"}),
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "mig-spark",
        }
        if self.key:
            headers[self.key_header] = f"Bearer {self.key}" if self.key_header.lower() == "authorization" else self.key
        request = httpx2.Request("GET" if body is None else "POST", self.url, headers=headers, content=body)
        request.extensions["trace"] = see
        response = await connection.handle_async_request(request)
        try:
            most = self.max_bytes if response.status_code == 200 else _ERROR_BYTES
            data = bytearray()
            async for piece in response.aiter_raw():
                data += piece[: most + 1 - len(data)]
                if len(data) > most:
                    break
        finally:
            # what is not read to its end is cut off
            await response.aclose()
        return response.status_code, response.headers.get("retry-after"), bytes(data)


def read_json(data: bytes) -> dict[str, Any] | None:
    """A body as a JSON object; None where it is something else. Whole numbers of many digits are read as floats."""
    try:
        found = json.loads(data, parse_int=_whole)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def shown(text: str) -> str:
    """A text from outside as messages and tables show it: on one line, short, without secrets."""
    plain = scrub(" ".join(text.split()))[:_SHOWN]
    return plain.encode("utf-8", "replace").decode()


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)


def _root(error: BaseException) -> BaseException:
    """The innermost cause of an error."""
    while True:
        several = getattr(error, "exceptions", None)
        cause = several[0] if several else error.__cause__ or error.__context__
        if cause is None:
            return error
        error = cause


def _proxy(url: str) -> str | None:
    """The proxy for an https address; None for plain http, which is taken for a server in the same network."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" or urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    proxy = urllib.request.getproxies().get("https")
    if not proxy:
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    # a port that is none raises here
    if urllib.parse.urlsplit(proxy).port is not None or urllib.parse.urlsplit(proxy).hostname:
        return proxy
    raise ValueError("no host")


def retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header (seconds, or an HTTP date) asks for; at most five minutes."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (TypeError, ValueError, OverflowError, OSError, IndexError):
            return None
    return None if math.isnan(seconds) else min(max(0.0, seconds), _LONGEST_WAIT)


def backoff(tries: int, *, base: float, longest: float) -> float:
    """Seconds to wait after so many failed tries: full jitter, so that tasks that failed together do not come back
    together."""
    return random.SystemRandom().uniform(0.0, min(longest, base * 2.0 ** (tries - 1)))
