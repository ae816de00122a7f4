"""One run at a time into the tables of one output: a lease, kept as commits to the table `leases`.

Delta gives every commit a number, so claims have one order that all drivers see, on every storage that Delta can be
written to, without a lock service: a claim holds when no earlier one is still in force. What a claim says is in its
commit's metadata, so that looking costs one reading of the table's history. A lease that is not renewed lapses, so a
driver that died blocks nobody for longer; one that died on this very machine blocks nobody at all.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import psutil

from mig_spark.config import LockConfig
from mig_spark.contracts import LEASES, POOL, RUNS
from mig_spark.errors import LeaseError
from mig_spark.lakehouse.tables import Store

logger = logging.getLogger(__name__)

#: So many of the newest commits are looked at; runs into the same tables at the same time are few.
_LOOKED_AT = 200
_POLL_SECONDS = 5.0
#: Owners in this process that have ended, also where that could not be written down (a full disk): a process that goes
#: on, a notebook's, must not wait for them.
_ENDED: set[str] = set()


@dataclass(frozen=True)
class Event:
    """One commit to `leases`: what it says, `order` its version, `until` in seconds since 1970 UTC.

    `born`: when the driver's process began, see `process_began`; None where that was not told.
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


def holder(events: Iterable[Event], now: float, alive: bool | None = None) -> Event | None:
    """The claim in force: the earliest one that was neither ended nor let lapse; `until` is that of its last renewal.

    Args:
        events: of any owners, in any order.
        now: seconds since 1970 UTC.
        alive: takes the place of the look at this machine's processes; for tests.
    """
    claims: dict[str, Event] = {}
    for event in sorted(events, key=lambda e: e.order):
        if event.event == "claim":
            claims[event.owner] = event
        elif event.owner in claims and event.event == "renew":
            claims[event.owner] = replace(claims[event.owner], until=event.until)
        else:
            claims.pop(event.owner, None)
    for claim in claims.values():
        lives = _lives(claim) if alive is None else alive
        if claim.until > now and lives:
            return claim
    return None


def process_began(pid: int) -> float:
    """Seconds from the machine's start to the process's: the same whatever happens to the clock."""
    booted = psutil.boot_time()
    return float(psutil.Process(pid).create_time() - booted)


def _lives(claim: Event) -> bool:
    """False where the claim's driver was on this machine and is there no more, also where another process has its
    number by now; and where it was this very process and has ended its run."""
    if claim.owner in _ENDED:
        return False
    if claim.host != socket.gethostname():
        return True
    try:
        if claim.born is None:
            return bool(psutil.Process(claim.pid).create_time() <= claim.since + 1)
        return abs(process_began(claim.pid) - claim.born) <= 1
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


class Lease:
    """The claim of one run, from `acquire` to `release`.

    Raises:
        LeaseError: another run holds it for longer than `config.wait_minutes`.
    """

    def __init__(self, store: Store, config: LockConfig) -> None:
        self._store, self._config = store, config
        self._owner = f"{store.writer.run_id}.{store.writer.attempt}"
        self._stop = threading.Event()
        self._beat: threading.Thread | None = None

    def acquire(self) -> None:
        """Claim, and wait until the claim is the one in force."""
        give_up = time.monotonic() + self._config.wait_minutes * 60
        self._append("claim")
        told = False
        while (found := self._holder()) is None or found.owner != self._owner:
            if found is None:
                # this claim lapsed while it waited
                self._append("claim")
                continue
            if time.monotonic() >= give_up:
                self._append("end")
                raise LeaseError(self._busy(found))
            if not told:
                logger.warning("%s: waiting up to %g minutes", self._busy(found), self._config.wait_minutes)
                told = True
            time.sleep(_POLL_SECONDS)
            self._append_if_late()
        self._beat = threading.Thread(target=self._renew_on_time, name="mig-spark lease", daemon=True)
        self._beat.start()

    def check(self) -> None:
        """See that the lease is still held: a driver that slept too long must not write.

        Raises:
            LeaseError: it is not.
        """
        found = self._holder()
        if found is None or found.owner != self._owner:
            now = "nobody" if found is None else f"run {found.run_id}"
            raise LeaseError(
                f"this run's lease on {self._where()} has lapsed and {now} holds it: this run stops before it writes; "
                "raise lock.lease_minutes if the driver was only slow"
            )

    def release(self) -> None:
        """Give it back."""
        _ENDED.add(self._owner)
        self._stop.set()
        if self._beat is not None:
            self._beat.join()
        self._append("end")

    def clean_up(self) -> None:
        """Remove the table where it is the only thing that a run left behind: there is nothing to guard."""
        store = self._store
        if self._holder() is None and not store.exists(RUNS) and not store.exists(POOL):
            store.drop(LEASES)

    def _append_if_late(self) -> None:
        mine = [e for e in self._events() if e.owner == self._owner]
        if mine and max(e.until for e in mine) - time.time() < self._config.lease_minutes * 60 / 2:
            self._append("renew")

    def _renew_on_time(self) -> None:
        while not self._stop.wait(self._config.lease_minutes * 60 / 3):
            self._renew()

    def _renew(self) -> None:
        try:
            self._append("renew")
        except Exception as e:  # noqa: BLE001 - a renewal that fails is tried again; `check` sees a lapse
            logger.warning("the lease on %s was not renewed (%s); trying again", self._where(), type(e).__name__)

    def _append(self, event: str) -> None:
        now = dt.datetime.now(dt.timezone.utc)
        until = now + dt.timedelta(minutes=self._config.lease_minutes)
        said = {
            "owner": self._owner, "event": event, "until": until.timestamp(), "since": now.timestamp(),
            "host": socket.gethostname(), "pid": os.getpid(),
            "born": process_began(os.getpid()),
        }  # fmt: skip
        row = (self._store.writer.run_id, event, until, said["host"], said["pid"])
        df = self._store.spark.createDataFrame([row], LEASES.ddl())
        self._store.write(LEASES, df, mode="append", told={"lease": said})

    def _events(self) -> list[Event]:
        events = []
        for commit in self._store.commits(LEASES, _LOOKED_AT):
            said = commit.told.get("lease")
            if said:
                own = {name: said[name] for name in ("owner", "event", "until", "host", "pid", "since")}
                run_id = str(commit.told.get("run_id"))
                events.append(Event(order=commit.version, run_id=run_id, born=said.get("born"), **own))
        return events

    def _holder(self) -> Event | None:
        return holder(self._events(), time.time())

    def _where(self) -> str:
        return self._store.location(LEASES).removesuffix("/tables/leases")

    def _busy(self, found: Event) -> str:
        until, since = (f"{dt.datetime.fromtimestamp(t, dt.timezone.utc):%H:%M:%S}" for t in (found.until, found.since))
        return (
            f"run {found.run_id} on {found.host} (process {found.pid}) has been writing into {self._where()} since "
            f"{since} UTC; its lease runs to {until} UTC unless renewed"
        )


@contextlib.contextmanager
def leased(store: Store, config: LockConfig) -> Iterator[Lease | None]:
    """Hold the lease for a `with` block; None where `config.enabled` is false.

    Raises:
        LeaseError: another run holds it for longer than `config.wait_minutes`.
    """
    if not config.enabled:
        yield None
        return
    lease = Lease(store, config)
    try:
        lease.acquire()
    except LeaseError:
        raise
    except BaseException:
        # the claim may have been written before it failed
        _release_quietly(lease)
        raise
    try:
        yield lease
    finally:
        _release_quietly(lease)


def _release_quietly(lease: Lease) -> None:
    """An error on the way out must not hide the one that ends the run; a lease that is not given back lapses."""
    try:
        lease.release()
        lease.clean_up()
    except Exception as e:  # noqa: BLE001 - see above
        logger.warning("the lease was not given back (%s); it lapses by itself", type(e).__name__)
