"""In a worker of Spark, modules are set aside after the first collection; garbage is collected all the same."""

import subprocess
import sys
import textwrap

PROGRAM = """
import gc, runpy, sys, types, weakref
sys.modules["__main__"].__spec__ = types.SimpleNamespace(name=sys.argv[1])
import mig_spark.kernels

class Loop:
    def __init__(self): self.me = self

gc.collect()
first = gc.get_freeze_count()
seen = weakref.ref(Loop())
gc.collect()
assert seen() is None
again = gc.get_freeze_count()
import mig_spark.kernels.selection.blocks
gc.collect()
print(first > 1_000, again - first, gc.get_freeze_count() > again)
"""


def told(name):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), name], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_what_modules_hold_is_set_aside_in_a_worker():
    first, between, after = told("pyspark.daemon")
    assert (first, after) == ("True", "True")
    # what is set aside goes with its last reference; nothing is added while no module is loaded
    assert abs(int(between)) < 1000


def test_other_processes_are_left_alone():
    assert told("mig_spark.cli")[0] == "False"
