"""Which selection was published last: what an incremental run begins with."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from mig_spark.config import Config
from mig_spark.contracts import FINISHED, RUNS, SELECTION
from mig_spark.curation.finished import Finished
from mig_spark.lakehouse.tables import Store
from mig_spark.selection.extend import Published
from mig_spark.selection.settings import settled_config
from mig_spark.selection.story import Story

logger = logging.getLogger(__name__)

#: Commits to SELECTION that are looked at, at most.
_LOOKED_AT = 50


def published(store: Store) -> Published:
    """The version of SELECTION that an incremental run extends or compares with.

    It is the newest version that no unfinished run wrote: that of the last run that finished the stage `select`, or a
    later one by somebody else. A run that died after writing the table and before finishing the stage does not count,
    or its retry would extend the rows of its own first attempt.

    Returns:
        The version, and the runs that wrote the table later and died.
    """
    if not store.exists(SELECTION):
        return Published(None)
    commits, finished, dead = store.commits(SELECTION, _LOOKED_AT), _finished(store), []
    for commit in commits:
        if commit.told.get("step") != "select":
            if not commit.changes_rows:
                continue
            break
        if finished is None or {(commit.version, commit.mark), (commit.version, None)} & finished:
            break
        dead.append(commit)
    if not dead:
        return Published(commits[0].version)
    before = dead[-1].version - 1
    none = before < 0 or store.read(SELECTION, version=before).isEmpty()
    logger.info("select: begins where run %s began, which did not come to its end", dead[-1].told.get("run_id"))
    return Published(None if none else before, tuple(dict.fromkeys(str(c.told.get("run_id")) for c in dead)))


def config_of_selection(store: Store, made: Finished) -> Mapping[str, Any] | None:
    """The config, as plain values with secrets masked, of the run that a selection is of; None where no record of that
    run is there.

    Args:
        made: the record of the stage `select`.
    """
    from pyspark.sql import functions as sf

    if not store.exists(RUNS):
        return None
    runs = store.read(RUNS).where(sf.col("run_id") == made.run_id)
    row = runs.orderBy((sf.col("status") == "ok").desc(), sf.col("started_at").desc()).select("config").first()
    found: Mapping[str, Any] | None = None if row is None else json.loads(row["config"])
    return found


def story_of(store: Store, config: Config, made: Finished) -> Story:
    """How the selection that a finished stage made came about, by the tables that it read.

    Args:
        config: what it was made by.
        made: the record of the stage `select`.
    """
    config = settled_config(config, made.certificate)
    then = store.pinned({**made.reads["tables"], **made.writes})
    # the counts have the rows that both selections have, which says nothing of a selection that was made anew
    kept = int(made.certificate.get("kept") or 0)
    return Story(then, config, strategy=made.certificate.get("strategy", "mig"), kept=kept)


def _finished(store: Store) -> set[tuple[int, str | None]] | None:
    """Commits to SELECTION of stages that came to their end: version, and mark where it is on record, which older
    versions of this package did not do; None where there is no record of stages."""
    if not store.exists(FINISHED):
        return None
    name, found = SELECTION.name, set()
    for row in store.read(FINISHED).where("stage = 'select'").select("writes", "marks").collect():
        writes, marks = json.loads(row["writes"]), json.loads(row["marks"] or "{}")
        if name in writes:
            found.add((int(writes[name]), marks.get(name)))
    return found
