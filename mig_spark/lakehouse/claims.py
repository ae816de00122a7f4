"""Who holds a lease, from what was written about it alone: every driver that reads the same events comes to the same
answer.

A claim holds when no earlier one is in force. It is in force until it ends or lapses; it is dead for good once an event
of somebody else is stamped later than its lease, for then others may have gone to work.
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
#: Owners in this process that have ended, also where that could not be written down (a full disk): a process that goes
#: on, a notebook's, must not wait for them.
ENDED: set[str] = set()


@dataclass(frozen=True)
class Event:
    """One event of a lease: a claim, a renewal of it, or its end.

    Attributes:
        order: its place among all events, the version of its commit.
        owner: the claim's, its own for each attempt of a run.
        event: `claim`, `renew` or `end`.
        until: when the lease lapses unless it is renewed; `since`: when this was written; seconds since 1970 UTC.
        host, pid: the driver's process; `born`: when it began, see `process_began`; `boot`, `space`: see `here`. None
            where that was not told.
        claim, claimed: `order` and `since` of the claim that this renews, so that it stands for the claim where that is
            too long ago to be looked at. None where an older version of this package wrote it.
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


def holder(events: Iterable[Event], now: float, alive: bool | None = None) -> Event | None:
    """The claim in force: the earliest that was neither ended nor let lapse; `until` is that of its last renewal.

    Args:
        events: of any owners, in any order, the newest ones without a gap.
        now: seconds since 1970 UTC.
        alive: takes the place of the look at this machine's processes; for tests.
    """
    in_force = (c for c in standing(events) if c.until > now and (lives(c) if alive is None else alive))
    return next(in_force, None)


def standing(events: Iterable[Event]) -> list[Event]:
    """Claims, the earliest first, that were not ended, and that nobody has outlived; they may have lapsed.

    A renewal prolongs its claim also after it has lapsed, as long as nobody else has written anything since then.
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
    """The claim that a renewal stands for."""
    order = _BEFORE_ALL if renewal.claim is None else renewal.claim
    since = renewal.since if renewal.claimed is None else renewal.claimed
    return replace(renewal, order=order, since=since, event="claim")


def process_began(pid: int) -> float:
    """Seconds from the machine's start to the process's: the same whatever happens to the clock."""
    booted = psutil.boot_time()
    return float(psutil.Process(pid).create_time() - booted)


def here() -> tuple[str | None, str | None]:
    """What tells this machine and its numbers of processes from others of the same host name, two containers for
    example: the id of the kernel's start, and the space of process ids. None where the system does not tell."""
    boot = space = None
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    with contextlib.suppress(OSError):
        space = str(Path("/proc/self/ns/pid").readlink())
    return boot, space


def lives(claim: Event) -> bool:
    """False where the claim's driver was on this machine and is there no more, also where another process has its
    number by now; and where it was this very process and has ended its run."""
    if claim.owner in ENDED:
        return False
    if claim.host != socket.gethostname():
        return True
    if (claim.boot, claim.space) != (None, None) and (claim.boot, claim.space) != here():
        return True
    try:
        if claim.born is None:
            return bool(psutil.Process(claim.pid).create_time() <= claim.since + 1)
        return abs(process_began(claim.pid) - claim.born) <= 1
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True
