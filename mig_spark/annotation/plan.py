"""What a run's annotators are, and what follows from them: keys, versions, and which pool rows they can work on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mig_spark.annotation.annotator import Annotator
from mig_spark.annotation.annotators import make_scorer, make_tagger
from mig_spark.annotation.students import when_fitted
from mig_spark.config import Config
from mig_spark.contracts import POOL
from mig_spark.kernels.ingest.rejects import SCORE_MISSING, SCORE_NEGATIVE, SCORE_NOT_FINITE
from mig_spark.lakehouse.tables import Store
from mig_spark.screen.kept import kept_rows

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

NO_ANNOTATION = "no annotation"
NO_LABELS = "no labels"


@dataclass(frozen=True)
class Plan:
    """The two annotators of a run; `screened`: they are for the rows that screening keeps, not for the whole pool."""

    tagger: Annotator
    scorer: Annotator
    screened: bool = False

    @property
    def annotators(self) -> tuple[Annotator, Annotator]:
        """Both."""
        return self.tagger, self.scorer

    @property
    def reads_given(self) -> bool:
        """Whether what the pool brought matters."""
        return self.tagger.reads_given or self.scorer.reads_given

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags that they may set."""
        return tuple(dict.fromkeys((*self.tagger.flags, *self.scorer.flags)))

    @property
    def may_fail(self) -> bool:
        """Whether a row can come back without an answer."""
        return self.tagger.may_fail or self.scorer.may_fail

    @property
    def paid(self) -> bool:
        """Whether answers cost money."""
        return self.tagger.paid or self.scorer.paid

    def versions(self) -> dict[str, str]:
        """The version columns of an annotation."""
        return {
            "tagger": self.tagger.name,
            "tagger_version": self.tagger.version,
            "scorer": self.scorer.name,
            "scorer_version": self.scorer.version,
        }

    def asked(self) -> dict[str, str]:
        """As `versions`, with the recipe of a student in place of its version, which is not known before it is fitted:
        what a config asks for."""
        recipes = {
            f"{role}_version": annotator.lesson.recipe
            for role, annotator in (("tagger", self.tagger), ("scorer", self.scorer))
            if annotator.lesson is not None
        }
        return {**self.versions(), **recipes}

    def keys(self) -> tuple[Column, Column]:
        """The cache keys that a pool row may have: the hash of its text, where neither annotator looks at what the pool
        brought, and the hash of both, where one does."""
        from pyspark.sql import functions as sf

        both = sf.concat(sf.col("text_hash"), sf.coalesce(sf.to_json("given"), sf.lit("")))
        return sf.col("text_hash"), sf.sha2(both, 256)

    def key(self) -> Column:
        """The cache key of a pool row: the hash of what annotators read of it, that is its text, and where they look at
        it what the pool brought."""
        return self.keys()[self.reads_given]

    def current(self) -> Column:
        """Whether an annotation is by these annotators in these versions."""
        return by("tagger", self.tagger) & by("scorer", self.scorer)

    def problem(self) -> Column:
        """Why a pool row cannot have an annotation of these kinds; null where it can."""
        from pyspark.sql import functions as sf

        labels, score = (
            sf.col("given.labels"),
            sf.coalesce("given.score", sf.col("given.quality") * sf.col("given.complexity")),
        )
        reason = sf.lit(None).cast("string")
        if self.scorer.reads_given:
            # Spark orders NaN above every number, so this also finds NaN
            reason = sf.when(score >= sf.lit(math.inf), SCORE_NOT_FINITE).when(score < 0, SCORE_NEGATIVE)
            reason = sf.when(score.isNull(), SCORE_MISSING).otherwise(reason)
        if self.tagger.reads_given:
            reason = sf.when(labels.isNull(), NO_LABELS).otherwise(reason)
        if self.tagger.reads_given and self.scorer.reads_given:
            reason = sf.when(labels.isNull() & score.isNull(), NO_ANNOTATION).otherwise(reason)
        return reason


def make_plan(store: Store, config: Config) -> Plan:
    """The tagger and the scorer that a config names, ready to annotate rows; a student that no run has fitted yet is
    not ready, and has to be fitted first (`learning.learn`).

    Raises:
        DependencyError: a model's library or files are not there.
        InputError: a list of labels cannot be read.
    """
    named = config.annotate
    tagger, scorer = make_tagger(named.tagger, store.spark), make_scorer(named.scorer, store.spark)
    return Plan(when_fitted(store, tagger), when_fitted(store, scorer), config.screen.enabled)


def by(role: str, annotator: Annotator) -> Column:
    """Whether an annotation's `role` (`tagger` or `scorer`) is this annotator in this version."""
    from pyspark.sql import functions as sf

    return (sf.col(role) == annotator.name) & (sf.col(f"{role}_version") == annotator.version)


def usable_rows(store: Store, plan: Plan, *columns: str | Column) -> DataFrame:
    """The rows that the annotators can work on, of those that screening keeps.

    Args:
        columns: columns of the pool, `id` among them; all of them by default.

    Returns:
        Their `_key`, and these columns.
    """
    pool = store.read(POOL)
    rows = pool.where(plan.problem().isNull()) if plan.reads_given else pool
    return to_annotate(store, plan, rows.select(plan.key().alias("_key"), *(columns or POOL.names)))


def to_annotate(store: Store, plan: Plan, rows: DataFrame) -> DataFrame:
    """Those of some pool rows, given with their `id`, that screening keeps; all of them where it is off.

    Raises:
        InputError: screening is on, and there is no table SCREENED.
    """
    return kept_rows(store, rows) if plan.screened else rows
