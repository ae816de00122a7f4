"""One run at a time writes the tables of one output: a lease, kept as commits to the table `leases`.

Delta numbers all commits, so every driver sees the claims in the same order, on any storage that Delta can write to and
without a lock service: a claim holds when no earlier one is in force (`claims.py`). An event is recorded in its
commit's metadata, so a look at the lease reads only the newest entries of the table's history. A lease that is not
renewed expires, so a dead driver blocks others only until then, and a driver that died on this same machine does not
block at all, unless a Spark Connect server may still work for it. While a lease is held, it is checked before each
commit that publishes (`Store.check_lease`).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator

from mig_spark.config import LockConfig
from mig_spark.contracts import LEASES, POOL, RUNS
from mig_spark.errors import LeaseError
from mig_spark.lakehouse.claims import ENDED, Event, here, holder, lives, process_began, standing
from mig_spark.lakehouse.commits import Commit
from mig_spark.lakehouse.runtime import from_rows, server_identity
from mig_spark.lakehouse.tables import Store

logger = logging.getLogger(__name__)

#: Number of newest commits that are read first; more are read while the oldest of them may still be in force.
_LOOKED_AT = 200
_MORE = 4
_POLL_SECONDS = 5.0
_TOLD = ("owner", "event", "until", "host", "pid", "since")
_TOLD_LATER = ("born", "boot", "space", "claim", "claimed", "server")


class Lease:
    """The claim of one run, from `acquire` to `release`.

    Raises:
        LeaseError: another run holds it for longer than `config.wait_minutes`.
    """

    def __init__(self, store: Store, config: LockConfig) -> None:
        self._store, self._config = store, config
        self._owner = f"{store.writer.run_id}.{store.writer.attempt}"
        self._server = server_identity(store.spark)
        self._stop = threading.Event()
        self._beat: threading.Thread | None = None
        # guards what the renewing thread and the main thread share
        self._turn = threading.RLock()
        self._claim: Event | None = None
        self._history: list[Commit] = []

    def acquire(self) -> None:
        """Claim, and wait until the claim is the one in force; from then on the tables' writer checks it."""
        give_up = time.monotonic() + self._config.wait_minutes * 60
        self._append("claim")
        told = confirmed = anew = False
        while True:
            events = self._events()
            found = holder(events, time.time(), server=self._server)
            if found is not None and found.owner == self._owner:
                # a claim that has lapsed could still be renewed; not when this run's word that it has comes first
                if confirmed or not self._follows_lapsed(events):
                    break
                self._append("renew")
                confirmed = True
                continue
            # another one's word came first, or this claim has lapsed: what was said counts no more
            confirmed = False
            late = time.monotonic() >= give_up
            if found is None:
                # this claim lapsed while it waited
                if late and anew:
                    self._append("end")
                    raise LeaseError(self._lapses())
                self._append("claim")
                anew = True
                continue
            if late:
                self._append("end")
                raise LeaseError(self._busy(found))
            anew = False
            if not told:
                logger.warning("%s: waiting up to %g minutes", self._busy(found), self._config.wait_minutes)
                told = True
            time.sleep(_POLL_SECONDS)
            if self._late():
                self._append("renew")
        self._store.writer.guard = self.check
        self._beat = threading.Thread(target=self._renew_on_time, name="mig-spark lease", daemon=True)
        self._beat.start()

    def check(self) -> None:
        """Check that the lease is still held. A driver that was suspended for longer than its lease goes on only where
        no other run has made a claim meanwhile.

        Raises:
            LeaseError: it is not held.
        """
        with self._turn:
            found = holder(self._events(), time.time(), server=self._server)
            if found is None:
                self._append("renew")
                found = holder(self._events(), time.time(), server=self._server)
        if found is None or found.owner != self._owner:
            now = "nobody" if found is None else f"run {found.run_id}"
            raise LeaseError(
                f"this run's lease on {self._where()} has lapsed and {now} holds it: this run stops before it writes; "
                "raise lock.lease_minutes if the driver was only slow"
            )

    def release(self) -> None:
        """End the claim."""
        ENDED.add(self._owner)
        self._store.writer.guard = None
        self._stop.set()
        if self._beat is not None:
            self._beat.join()
        self._append("end")

    def clean_up(self) -> None:
        """Remove the lease's table where the run left nothing else behind: then there is nothing to guard."""
        store = self._store
        if (
            holder(self._events(), time.time(), server=self._server) is None
            and not store.exists(RUNS)
            and not store.exists(POOL)
        ):
            store.drop(LEASES)

    def _follows_lapsed(self, events: list[Event]) -> bool:
        first = standing(events)[0]
        return first.owner != self._owner and lives(first, self._server)

    def _late(self) -> bool:
        """Whether a waiting claim should be renewed now."""
        return self._claim is None or self._claim.until - time.time() < self._config.lease_minutes * 60 / 2

    def _renew_on_time(self) -> None:
        while not self._stop.wait(self._config.lease_minutes * 60 / 3):
            self._renew()

    def _renew(self) -> None:
        """Renew, unless the claim has expired and another run has come since: a driver that sees only the newest events
        would take that renewal for one of a claim in force."""
        try:
            with self._turn:
                lapsed = self._claim is not None and self._claim.until <= time.time()
                if lapsed and all(c.owner != self._owner for c in standing(self._events())):
                    return
                self._append("renew")
        except Exception as e:  # noqa: BLE001 - a renewal that fails is tried again; `check` sees a lapse
            logger.warning("the lease on %s was not renewed (%s); trying again", self._where(), type(e).__name__)

    def _append(self, event: str) -> None:
        with self._turn:
            now = dt.datetime.now(dt.timezone.utc)
            until = now + dt.timedelta(minutes=self._config.lease_minutes)
            boot, space = here()
            said = {
                "owner": self._owner, "event": event, "until": until.timestamp(), "since": now.timestamp(),
                "host": socket.gethostname(), "pid": os.getpid(), "born": process_began(os.getpid()),
                "boot": boot, "space": space, "server": self._server,
            }  # fmt: skip
            if event != "claim" and self._claim is not None:
                said |= {"claim": self._claim.order, "claimed": self._claim.since}
            row = (self._store.writer.run_id, event, until, said["host"], said["pid"])
            df = from_rows(self._store.spark, [row], LEASES.ddl())
            self._store.write(LEASES, df, mode="append", told={"lease": said})

    def _events(self) -> list[Event]:
        """The newest events, as many as can matter; this run's own claim is among them."""
        with self._turn:
            self._read_on()
            events = [e for e in map(_event, self._history) if e is not None]
            mine = [c for c in standing(events) if c.owner == self._owner]
            if mine:
                self._claim = mine[0]
            return events

    def _read_on(self) -> None:
        """Read what is new since the last look; everything where the table was created again meanwhile."""
        store = self._store
        if not store.exists(LEASES):
            self._history = []
            return
        if self._history:
            last, newest = self._history[0], store.newest(LEASES)
            behind = newest.version - last.version
            if behind >= 0:
                news = store.commits(LEASES, behind + 1) if behind else [newest]
                if (news[-1].version, news[-1].mark) == (last.version, last.mark):
                    self._history = news[:-1] + self._history
                    return
        count = _LOOKED_AT
        while True:
            self._history = store.commits(LEASES, count)
            oldest = next(filter(None, map(_event, reversed(self._history))), None)
            if len(self._history) < count or oldest is None or oldest.until <= time.time():
                return
            count *= _MORE

    def _where(self) -> str:
        return self._store.location(LEASES).removesuffix("/tables/leases")

    def _lapses(self) -> str:
        return (
            f"this run's claims on {self._where()} lapse before they are read again, since a commit there takes longer "
            f"than lock.lease_minutes = {self._config.lease_minutes:g}: raise it"
        )

    def _busy(self, found: Event) -> str:
        until, since = (f"{dt.datetime.fromtimestamp(t, dt.timezone.utc):%H:%M:%S}" for t in (found.until, found.since))
        return (
            f"run {found.run_id} on {found.host} (process {found.pid}) has been writing into {self._where()} since "
            f"{since} UTC; its lease runs to {until} UTC unless renewed"
        )


def _event(commit: Commit) -> Event | None:
    """The event that a commit records; None for commits that record none."""
    said = commit.told.get("lease")
    if not said:
        return None
    known = {name: said[name] for name in _TOLD} | {name: said.get(name) for name in _TOLD_LATER}
    return Event(order=commit.version, run_id=str(commit.told.get("run_id")), **known)


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
        # the claim may have been written before it failed; mostly the place cannot be written to, as the error says
        _release_quietly(lease, logging.DEBUG)
        raise
    try:
        yield lease
    finally:
        _release_quietly(lease)


def _release_quietly(lease: Lease, level: int = logging.WARNING) -> None:
    """Release without raising: an error here must not hide the one that ends the run, and a lease that is not released
    expires. `level`: at which it is told."""
    try:
        lease.release()
        lease.clean_up()
    except Exception as e:  # noqa: BLE001 - see above
        logger.log(level, "the lease was not given back (%s); it lapses by itself", type(e).__name__)
