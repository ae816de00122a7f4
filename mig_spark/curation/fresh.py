"""Whether SCREENED and ANNOTATED are still what the config and the tables that they were made from say.

In a whole run the stages' keys see to that. A stage that is asked for by name reads what it finds, so the record of the
stage that wrote the table is looked at first: what that one had read, and with which settings.
"""

from __future__ import annotations

import hashlib
import json
import logging
from typing import Any

from mig_spark.config import Config
from mig_spark.contracts import ANNOTATED, ANNOTATIONS, LABELS, POOL, SCREENED, VOCABULARY, Table
from mig_spark.curation.finished import Finished, finished_writes, named_file_facts
from mig_spark.errors import InputError
from mig_spark.labels.tag_map import vocabulary_version
from mig_spark.lakehouse.tables import Store
from mig_spark.masking import mask_secrets

logger = logging.getLogger(__name__)

#: Commits to a table, and records of stages, that are looked at, at most.
_LOOKED_AT = 50
#: Keys of a tagger or scorer that say which one it is; the others may say only how fast it works.
_DECIDES = ("kind", "model")
#: What a record calls the question whether screening is on, or how.
_SCREEN = "screen"
_PAID = "what models have answered is in the table `annotations`, so none is asked again"


def annotated_by(config: Config) -> str:
    """The stage that writes ANNOTATED under a config."""
    return "vocabulary" if config.vocabulary.enabled else "annotate"


def made_with(config: Config) -> dict[str, str]:
    """What of the config the rows of ANNOTATED follow from, as hashes for a stage's record."""
    plain = config.to_dict()["annotate"]
    named = {"annotate.score": plain["score"], "annotate.tokenizer": plain["tokenizer"]}
    named |= {_SCREEN: config.screen.enabled}
    if plain["tagger"].get("groups") is not None:
        named["report.excerpts"] = config.report.excerpts == "text"  # else names of groups say nothing of the rows
    for role in ("tagger", "scorer"):
        named[f"annotate.{role}"] = plain[role]
        named |= {f"annotate.{role}.{key}": plain[role].get(key) for key in _DECIDES}
        teacher = plain[role].get("teacher") if plain[role]["kind"] == "student" else None
        if isinstance(teacher, dict):
            named |= {f"annotate.{role}.teacher.{key}": teacher.get(key) for key in _DECIDES}
    return {name: _hash(value) for name, value in named.items()}


def screened_with(config: Config) -> dict[str, str]:
    """What of the config the rows of SCREENED follow from, likewise."""
    return {_SCREEN: _hash(config.screen.of_rows())}


def see_that_screened_is_fresh(store: Store, config: Config) -> None:
    """Stop before a stage that reads which rows screening keeps, where they are those of another pool or config.

    Raises:
        InputError: the pool, what the config says of screening, or a file with an evaluation set has changed since
            SCREENED was written.
    """
    made = _same_state(store, SCREENED)
    if made and all(_has_other_rows(store, POOL, m) for m in made):
        raise InputError(
            "the table `pool` has changed since `screened` was written from it: run the stage `screen` again"
        )
    now = screened_with(config)
    if made and all((m.reads.get("made_with") or now) != now for m in made):
        raise InputError(
            "the table `screened` was written with another section `screen` than the config has now: run the stage "
            "`screen` again"
        )
    facts = named_file_facts(store.spark, [one.path for one in config.screen.contamination])
    for path, state in facts.items():
        # of a catalog's table nothing tells
        if isinstance(state, list) and made and all(m.reads["files"].get(mask_secrets(path)) != state for m in made):
            raise InputError(
                f"{mask_secrets(path)} has changed since `screened` was written by it: run the stage `screen` again"
            )


def see_that_annotated_is_there(store: Store, config: Config) -> None:
    """Say which stage writes ANNOTATED, where it is not there: a run made before there was such a table has none.

    Raises:
        InputError: it is not there.
    """
    if not store.exists(ANNOTATED):
        raise InputError(
            f"no table {ANNOTATED.name!r} at {store.location(ANNOTATED)}: run the stage `{annotated_by(config)}` "
            f"first, or all stages by `mig-spark run` ({_PAID})"
        )


def see_that_annotated_is_fresh(store: Store, config: Config) -> None:
    """Stop before a stage that reads ANNOTATED, where the table is missing or another stage has to write it first.

    Raises:
        InputError: it is not there; the pool, what screening keeps of it, the annotations, the vocabulary or what the
            config says of annotation have changed since it was written. The line says which stage to run.
    """
    see_that_annotated_is_there(store, config)
    records = _same_state(store, ANNOTATED)
    reasons = [_why_stale(store, config, made) for made in records]
    if reasons and None not in reasons:
        raise InputError(f"{reasons[0]}: run the stage `{annotated_by(config)}` again, then those after it ({_PAID})")
    other = _other_settings(config, records[reasons.index(None)]) if reasons else []
    if other:
        logger.warning("the table annotated was written with another %s than the config has now", " and ".join(other))


def see_that_the_pool_is_of_this_version(store: Store) -> None:
    """Stop before rows are published whose content hash an older version made, of less than a trainer sees: an extended
    selection would take them for changed once the pool is made anew.

    Raises:
        InputError: the pool has rows of an older version.
    """
    if store.exists(POOL) and not store.read(POOL).where("kind is null").isEmpty():
        raise InputError("the table `pool` was made by an older version: run `ingest` again, then the stages after it")


def see_that_graph_is_fresh(store: Store) -> None:
    """Stop before a stage that reads the label graph, where its labels are not those that rows have now: others would
    count for nothing, silently.

    Raises:
        InputError: ANNOTATED has changed since the graph was built from it.
    """
    made = _same_state(store, LABELS)
    if made and all(ANNOTATED.name not in m.reads["tables"] or _has_other_rows(store, ANNOTATED, m) for m in made):
        raise InputError(
            "the table `annotated` has changed since the label graph was built from it: run the stage `graph` again"
        )


def _same_state(store: Store, table: Table) -> list[Finished]:
    """The records of stages that left a table as it is now, the newest first; the newest of all where others have
    changed it since. Of one state there may be several, for a stage that finds nothing to change commits nothing."""
    records = finished_writes(store, table, _LOOKED_AT) if store.exists(table) else []
    if not records:
        return []
    now = store.newest(table)
    same = [r for r in records if (r.writes[table.name], r.marks.get(table.name)) == (now.version, now.mark)]
    return same or records[:1]


def _why_stale(store: Store, config: Config, made: Finished) -> str | None:
    stage = annotated_by(config)
    if made.stage != stage:
        has = "tags as they are" if stage == "vocabulary" else "the labels of a vocabulary"
        return f"the table `annotated` has {has}, but vocabulary.enabled is {str(stage == 'vocabulary').lower()}"
    changed = [name for name in _other_settings(config, made) if name not in ("annotate.tagger", "annotate.scorer")]
    if changed:
        return f"the table `annotated` was written with another {' and '.join(changed)} than the config has now"
    for table in (POOL, SCREENED, ANNOTATIONS) if config.screen.enabled else (POOL, ANNOTATIONS):
        if _has_other_rows(store, table, made):
            return f"the table `{table.name}` has changed since `annotated` was written from it"
    mapped = stage == "vocabulary" and store.exists(VOCABULARY)
    if mapped and vocabulary_version(store)["map"] != made.counts.get("map"):
        return "the table `vocabulary` was edited since `annotated` was written by it"
    return None


def _other_settings(config: Config, made: Finished) -> list[str]:
    then: dict[str, Any] = made.reads.get("made_with") or {}
    return [name for name, value in made_with(config).items() if then.get(name, value) != value]


def _has_other_rows(store: Store, table: Table, made: Finished) -> bool:
    """Whether a table may have other rows than those that a stage read."""
    version, mark = (made.reads.get(of, {}).get(table.name) for of in ("tables", "marks"))
    if version is None or not store.exists(table):
        return False
    commits = {c.version: c for c in store.commits(table, _LOOKED_AT)}
    if version not in commits or mark not in (None, commits[version].mark):
        return True  # made anew, or long ago
    return any(c.changes_rows for c in commits.values() if c.version > version)


def _hash(plain: Any) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
