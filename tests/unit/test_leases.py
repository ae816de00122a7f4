"""Who holds the lease, from the commits alone; and that nothing is written without it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mig_spark.annotation.chunks import _do_chunk
from mig_spark.annotation.work import Work
from mig_spark.config import LockConfig, OutputConfig
from mig_spark.contracts import POOL, SCRATCH, TABLES
from mig_spark.errors import LeaseError
from mig_spark.export.write import export_selection
from mig_spark.lakehouse import leases
from mig_spark.lakehouse.claims import ENDED, Event, here, holder, process_began, standing
from mig_spark.lakehouse.commits import Commit
from mig_spark.lakehouse.tables import Store, Writer

HERE = socket.gethostname()


def event(order, owner, kind="claim", until=100.0, host="elsewhere", pid=1, since=0.0, born=None, **more):
    return Event(order, owner, f"run of {owner}", kind, until, host, pid, since, born, **more)


def test_the_first_claim_holds_until_it_ends():
    events = [event(1, "a"), event(2, "b")]
    assert holder(events, 50).owner == "a"
    assert holder([*events, event(3, "a", "end")], 50).owner == "b"


def test_a_claim_lapses_and_a_renewal_prolongs_it():
    events = [event(1, "a", until=10), event(2, "b", until=100)]
    assert holder(events, 11).owner == "b"
    assert holder([*events, event(3, "a", "renew", until=60)], 11).owner == "a"
    assert holder(events, 101) is None


def test_a_driver_that_died_on_this_machine_holds_nothing():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert holder([event(1, "a", host=HERE, pid=gone.pid)], 50) is None
    assert holder([event(1, "a", host="elsewhere", pid=gone.pid)], 50).owner == "a"


def test_a_process_that_has_ended_holds_nothing_though_nobody_has_waited_for_it():
    gone = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    claim = event(1, "a", host=HERE, pid=gone.pid, born=process_began(gone.pid))
    assert holder([claim], 50).owner == "a"
    gone.kill()
    # waits, and leaves it as it is
    os.waitid(os.P_PID, gone.pid, os.WEXITED | os.WNOWAIT)
    try:
        assert holder([claim], 50) is None
    finally:
        gone.communicate()


def test_a_new_process_with_the_number_of_a_dead_one_is_not_it():
    mine = event(1, "a", host=HERE, pid=os.getpid(), since=1.0)
    assert holder([mine], 50) is None
    born = process_began(os.getpid())
    assert holder([event(1, "a", host=HERE, pid=os.getpid(), born=born - 60)], 50) is None


def test_a_clock_that_was_moved_kills_nobody():
    # the claim's time is of a clock that stood elsewhere
    born = process_began(os.getpid())
    for since in (1.0, 1e12):
        assert holder([event(1, "a", host=HERE, pid=os.getpid(), since=since, born=born)], 50).owner == "a"


def test_two_containers_of_one_name_are_two_machines():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    boot, space = here()
    dead = event(1, "a", host=HERE, pid=gone.pid, boot=boot, space=space)
    assert holder([dead], 50) is None
    # the same name and number of a process in another container, or on another machine
    assert holder([replace(dead, space="pid:[77]")], 50).owner == "a"
    assert holder([replace(dead, boot="of another machine")], 50).owner == "a"
    born = process_began(os.getpid())
    assert holder([replace(dead, pid=os.getpid(), born=born)], 50).owner == "a"


def test_a_run_that_this_process_ended_counts_while_the_server_may_work_for_it(monkeypatch):
    mine = event(1, "ended here", host=HERE, pid=os.getpid())
    monkeypatch.setattr("mig_spark.lakehouse.claims.ENDED", ENDED | {"ended here"})
    assert holder([mine], 50) is None
    assert holder([replace(mine, server="app-1")], 50, server="app-1").owner == "ended here"
    assert holder([replace(mine, server="app-1")], 50, server="app-2") is None
    assert holder([replace(mine, server="app-1")], 101, server="app-1") is None


def test_a_renewal_stands_for_a_claim_that_is_too_long_ago_to_be_looked_at():
    renewals = [event(k, "a", "renew", until=k + 10, since=k, claim=3, claimed=1.0) for k in range(500, 700)]
    found = holder([*renewals, event(700, "b", since=700, until=800)], 701)
    assert (found.owner, found.order, found.since, found.until) == ("a", 3, 1.0, 709)
    # as version 0.1.0 wrote them: when it was claimed is not told, but it was before all that is seen
    old = [replace(e, claim=None, claimed=None) for e in renewals]
    assert (
        holder([event(499, "c", since=499, until=800), *old, event(700, "b", since=700, until=800)], 701).owner == "a"
    )
    assert holder([*old, event(700, "a", "end"), event(701, "b", until=800)], 702).owner == "b"


def test_a_claim_that_others_have_outlived_is_not_renewed():
    claimed = event(1, "a", until=10)
    late = event(3, "a", "renew", until=60, since=12, claim=1)
    # nobody came while its driver slept: it goes on
    assert holder([claimed, late], 13).owner == "a"
    # somebody came, saw that it had lapsed and may have gone to work, or has ended already
    other = event(2, "b", since=11, until=50)
    assert holder([claimed, other, late], 13).owner == "b"
    assert holder([claimed, other, late, event(4, "b", "end", since=14)], 15) is None
    # it waited before the claim lapsed, and says once more that it is there before it goes to work
    waits = event(2, "b", since=5, until=50)
    assert [c.owner for c in standing([claimed, waits, late])] == ["a", "b"]
    assert holder([claimed, waits, event(3, "b", "renew", since=11, until=60), replace(late, order=4)], 13).owner == "b"


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["claim", "renew", "end"]), st.floats(0, 100)), max_size=12
    ),
    st.floats(0, 100),
)
def test_at_most_one_holds_and_it_has_claimed_and_not_ended(history, now):
    events = [event(k, owner, kind, until, since=-1.0) for k, (owner, kind, until) in enumerate(history)]
    found = holder(events, now, alive=True)
    of = {o: [(kind, until) for owner, kind, until in history if owner == o] for o in "abc"}

    def in_force(owner):
        until, ended = None, False
        for kind, value in of[owner]:
            if kind == "claim":
                until = value
            elif kind == "end":
                until, ended = None, True
            elif until is not None or not ended:
                # the claim of a renewal was before all that is seen
                until = value
        return until is not None and until > now

    holders = [o for o in "abc" if in_force(o)]
    assert (found is None) == (not holders)
    if found is not None:
        assert found.owner in holders


@given(st.data())
def test_the_newest_events_tell_what_all_of_them_tell(data):
    """Drivers that claim, renew every third of a lease and end, all stamped by one clock: whoever looks at the events
    of the last lease only finds the same holder as whoever looks at all."""
    lease, now, events, live = 9.0, 0.0, [], {}
    for order in range(data.draw(st.integers(1, 60))):
        now += data.draw(st.floats(0, 2))
        due = [o for o, e in live.items() if now - e.since >= lease / 3]
        owner = due[0] if due else data.draw(st.sampled_from("abcdef"))
        mine = live.get(owner)
        if due and all(c.owner != owner for c in standing(events)):
            # others have come since its claim lapsed: it is not renewed any more
            del live[owner]
            continue
        kind = "claim" if mine is None else "renew" if due else "end"
        said = {} if mine is None else {"claim": mine.claim, "claimed": mine.claimed}
        if kind == "claim":
            said = {"claim": order, "claimed": now}
        events.append(event(order, owner, kind, until=now + lease, since=now, **said))
        live[owner] = events[-1]
        if kind == "end":
            del live[owner]
    seen = [e for e in events if e.until > now]
    mine, all_of_it = holder(seen, now, alive=True), holder(events, now, alive=True)
    assert (mine and (mine.owner, mine.until)) == (all_of_it and (all_of_it.owner, all_of_it.until))


def lost():
    raise LeaseError("another run has it")


def test_without_the_lease_nothing_is_written_or_asked(tmp_path):
    store = Store(None, OutputConfig(path=str(tmp_path)), Writer("r", guard=lost))
    for table in (*TABLES.values(), POOL):
        if table.name in ("leases", "runs") or table in SCRATCH:
            continue
        with pytest.raises(LeaseError):
            store.write(table, None)
        with pytest.raises(LeaseError):
            store.merge(table, None, "", delete="", update="", insert="")
    with pytest.raises(LeaseError):
        export_selection(store, str(tmp_path / "selection.jsonl"))
    with pytest.raises(LeaseError):
        _do_chunk(Work(store, SimpleNamespace(), SimpleNamespace(), "r", None), 0, 1, 1, 1)
    assert list(tmp_path.iterdir()) == []


class Log:
    """A store whose only table is that of the leases; `before` is what others write before an event of ours."""

    spark, location = None, staticmethod(lambda _: "/out/tables/leases")

    def __init__(self, before):
        self.events, self.writer, self.before = [], Writer("mine"), before

    def write(self, _table, _rows, *, mode, told):
        self.events += [*self.before(self, told["lease"]), told["lease"]]

    def exists(self, _table):
        return bool(self.events)

    def commits(self, _table, last):
        made = [Commit(k, {"lease": said, "run_id": said["owner"]}, "WRITE", k) for k, said in enumerate(self.events)]
        return made[::-1][:last]

    def newest(self, table):
        return self.commits(table, 1)[0]


@pytest.fixture
def lease_in(monkeypatch):
    """A lease over such a store."""
    monkeypatch.setattr(leases, "from_rows", lambda *_: None)
    monkeypatch.setattr(leases, "server_identity", lambda _: None)
    monkeypatch.setattr(leases, "_POLL_SECONDS", 0.05)
    return lambda before, **lock: leases.Lease(Log(before), LockConfig.model_construct(**lock))


def test_a_run_whose_claims_lapse_before_they_are_read_gives_up(lease_in):
    """Else it would write one after the other for ever."""
    lease = lease_in(lambda *_: (), lease_minutes=1e-9, wait_minutes=0.002)
    with pytest.raises(LeaseError, match=r"takes longer than lock.lease_minutes = 1e-09: raise it"):
        lease.acquire()
    assert lease._store.events[-1]["event"] == "end"


def test_after_a_lost_race_a_run_says_once_more_that_it_takes_over(lease_in):
    """Another driver was suspended, and renews its claim just before this run's word that it has lapsed; then it is
    suspended again. What this run has said before that does not keep it from a third renewal."""

    def told(event, since, until):
        return {"owner": "other", "event": event, "since": since, "until": until, "host": "elsewhere", "pid": 1}

    def before(log, said):
        now = time.time()
        if said["event"] == "claim":
            return [told("claim", now - 60, now + 0.1)]
        return [told("renew", now, now + 0.5)] if len(log.events) == 2 else []

    lease = lease_in(before, lease_minutes=10.0, wait_minutes=1.0)
    lease.acquire()
    try:
        [*_, last] = lease._store.events
        assert [(e["owner"], e["event"]) for e in lease._store.events[:3]] == [
            ("other", "claim"), (last["owner"], "claim"), ("other", "renew"),
        ]  # fmt: skip
        assert (last["event"], last["since"] >= lease._store.events[2]["until"]) == ("renew", True)
    finally:
        lease.release()
