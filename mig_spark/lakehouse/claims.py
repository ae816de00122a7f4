"""Who holds a lease, decided from its recorded events alone, so that every driver that reads the same events comes to
the same answer.

A claim holds when no earlier claim is in force. A claim is in force until it is ended or its lease expires. Once
another owner has written an event after that expiry, the claim can no longer be renewed, since others may have started
to work.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

#: The order of a claim that was made before the events that were looked at, and whose renewals do not say when.
_BEFORE_ALL = -1
#: Owners in this process that have ended, also where the end could not be recorded (a full disk), so that a process
#: that lives on, such as a notebook's, need not wait for their leases to expire.
ENDED: set[str] = set()


@dataclass(frozen=True)
class Event:
    """One event of a lease: a claim, a renewal of it, or its end.

    Attributes:
        order: its position among all events: the Delta version of its commit.
        owner: identifies the claim; each attempt of a run has its own.
        event: `claim`, `renew` or `end`.
        until: when the lease expires unless it is renewed, seconds since 1970 UTC.
        since: when this event was written, seconds since 1970 UTC.
        host, pid: the driver's process.
        born: when that process began, see `process_began`; None where it was not recorded.
        boot, space: the machine's boot id and process namespace, see `here`; None where they were not recorded.
        claim, claimed: `order` and `since` of the claim that this event renews, so that it can stand for a claim that
            is too old to be looked at. None where an older version of this package wrote it.
        server: which Spark Connect server works for this run; None: the driver itself does.
    """

    order: int
    owner: str
    run_id: str
    event: str
    until: float
    host: str
    pid: int
    since: float
    born: float | None = None
    boot: str | None = None
    space: str | None = None
    claim: int | None = None
    claimed: float | None = None
    server: str | None = None


def holder(
    events: Iterable[Event], now: float, alive: bool | None = None, *, server: str | None = None
) -> Event | None:
    """The claim in force: the earliest one that was neither ended nor has expired; its `until` is that of its last
    renewal.

    Args:
        events: of any owners, in any order; the newest events without a gap.
        now: seconds since 1970 UTC.
        alive: replaces the check of this machine's processes; for tests.
        server: as `Event.server`, of the run that asks.
    """
    in_force = (c for c in standing(events) if c.until > now and (lives(c, server) if alive is None else alive))
    return next(in_force, None)


def standing(events: Iterable[Event]) -> list[Event]:
    """Claims, earliest first, that were not ended and not superseded by another owner; some may have expired.

    A claim can be renewed after its expiry as long as no other owner has written an event since then.
    """
    claims: dict[str, Event] = {}
    gone: set[str] = set()
    for event in sorted(events, key=lambda e: e.order):
        for other in [o for o, c in claims.items() if o != event.owner and c.until <= event.since]:
            del claims[other]
            gone.add(other)
        if event.event == "claim":
            claims[event.owner] = event
        elif event.event == "end":
            claims.pop(event.owner, None)
            gone.add(event.owner)
        elif event.owner in claims:
            claims[event.owner] = replace(claims[event.owner], until=event.until)
        elif event.owner not in gone:
            claims[event.owner] = _claim_of(event)
    return sorted(claims.values(), key=lambda c: c.order)


def _claim_of(renewal: Event) -> Event:
    """The claim that a renewal belongs to."""
    order = _BEFORE_ALL if renewal.claim is None else renewal.claim
    since = renewal.since if renewal.claimed is None else renewal.claimed
    return replace(renewal, order=order, since=since, event="claim")


def process_began(pid: int) -> float:
    """Seconds from the machine's boot to the start of a process; unaffected by changes of the clock."""
    booted = psutil.boot_time()
    return float(psutil.Process(pid).create_time() - booted)


def here() -> tuple[str | None, str | None]:
    """The boot id and the process namespace of this machine: they tell two machines of one host name (two containers,
    for example) apart, whose process ids mean different processes. None where the system does not show them."""
    boot = space = None
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    with contextlib.suppress(OSError):
        space = str(Path("/proc/self/ns/pid").readlink())
    return boot, space


def lives(claim: Event, server: str | None = None) -> bool:
    """Whether a claim's run may still write. False where its process has ended, as far as that can be told from here,
    or this process has ended the run, and nothing else works for it: a Spark Connect server goes on for a while with
    what a client that is gone had asked for, so its claim counts until it expires, or until there is another server.

    Args:
        server: as `Event.server`, of the run that asks.
    """
    if claim.server is not None and claim.server == server:
        return True
    return claim.owner not in ENDED and _process_lives(claim)


def _process_lives(claim: Event) -> bool:
    """False where the claim's driver ran on this machine and its process has ended (also where another process has
    reused its id, and where nobody has asked yet how it ended, as in containers without an init process). True in all
    other cases."""
    if claim.host != socket.gethostname():
        return True
    if (claim.boot, claim.space) != (None, None) and (claim.boot, claim.space) != here():
        return True
    try:
        if psutil.Process(claim.pid).status() == psutil.STATUS_ZOMBIE:
            return False
        if claim.born is None:
            return bool(psutil.Process(claim.pid).create_time() <= claim.since + 1)
        return abs(process_began(claim.pid) - claim.born) <= 1
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True
