"""Who holds the lease, from the commits alone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from mig_spark.lakehouse.leases import Event, holder, process_began

HERE = socket.gethostname()


def event(order, owner, kind="claim", until=100.0, host="elsewhere", pid=1, since=0.0, born=None):
    return Event(order, owner, f"run of {owner}", kind, until, host, pid, since, born)


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


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["claim", "renew", "end"]), st.floats(0, 100)), max_size=12
    ),
    st.floats(0, 100),
)
def test_at_most_one_holds_and_it_has_claimed_and_not_ended(history, now):
    events = [event(k, owner, kind, until) for k, (owner, kind, until) in enumerate(history)]
    found = holder(events, now, alive=True)
    of = {o: [(kind, until) for owner, kind, until in history if owner == o] for o in "abc"}

    def in_force(owner):
        until = None
        for kind, value in of[owner]:
            if kind == "claim":
                until = value
            elif kind == "end":
                until = None
            elif until is not None:
                until = value
        return until is not None and until > now

    holders = [o for o in "abc" if in_force(o)]
    assert (found is None) == (not holders)
    if found is not None:
        assert found.owner in holders
