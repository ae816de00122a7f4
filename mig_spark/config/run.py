"""A whole run: where rows come from, where tables go, and every stage between."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WrapValidator, model_validator

from mig_spark.config.annotate import AnnotateConfig
from mig_spark.config.base import Section, heap_size, one_or_many
from mig_spark.config.evaluate import EvaluateConfig
from mig_spark.config.kinds import OneOf
from mig_spark.config.labels import GraphConfig, VocabularyConfig
from mig_spark.config.presets import published
from mig_spark.config.screen import ScreenConfig
from mig_spark.config.select import INVARIANT_NEEDS_RECEIVER, SelectConfig
from mig_spark.contracts import OWN_COLUMNS
from mig_spark.plugins import EXPORTS

#: Sections that change nothing of what a run selects.
_DECIDES_NOTHING = ("spark", "output", "lock", "report", "evaluate", "tracking")


class PoolConfig(Section):
    """Where the rows come from and how to read them."""

    path: Annotated[str | Annotated[list[str], Field(min_length=1)], WrapValidator(one_or_many)] = Field(
        description="file, folder, glob, Delta path or catalog table; or a list of them", examples=["data/pool.jsonl"]
    )
    format: Literal["auto", "delta", "parquet", "jsonl", "json"] = Field(
        "auto", description="format of the source; auto: by the files' names, and by what Delta and the catalog know"
    )
    schema_: Literal[
        "auto",
        "alpaca",
        "pair",
        "sharegpt",
        "messages",
        "mig",
        "prompt_completion",
        "prompt_only",
        "preference",
        "alpaca_preference",
        "sharegpt_preference",
        "messages_preference",
        "openai_preference",
        "kto",
        "stepwise",
    ] = Field("auto", alias="schema", description="docs/formats.md has what each looks like")
    kinds: list[Literal["sft", "preference", "kto", "prompt", "stepwise"]] | None = Field(
        None, min_length=1, description="kinds of rows to keep; the others go to `rejected`. null: all"
    )
    columns: dict[
        Literal[
            "id",
            "source",
            "prompt",
            "response",
            "input",
            "system",
            "messages",
            "chosen",
            "rejected",
            "labels",
            "score",
            "quality",
            "complexity",
        ],
        str,
    ] = Field(default_factory=dict, description="your column's name for its role, e.g. {prompt: question}; '' for none")
    source: str | None = Field(
        None,
        description="source name of rows that bring none; null: the name of their table or file, or of the file's "
        "folder where that is only a number",
    )
    max_record_bytes: int = Field(
        16 << 20, ge=1, description="bytes of text; records with more are rejected and never held in memory whole"
    )
    max_labels: int = Field(10_000, ge=1, description="records that bring more labels are rejected")

    def paths(self) -> list[str]:
        """`path` as a list."""
        return [self.path] if isinstance(self.path, str) else list(self.path)


class OutputConfig(Section):
    """Where the tables, the selection and the report go: a folder, or a catalog and database.

    With a database the tables go there; a path as well then takes the report and the selection file.
    """

    path: str | None = Field(
        None,
        description="folder or URI for selection.jsonl, report.html and, without a database, the tables",
        examples=["mig-out"],
    )
    catalog: str | None = Field(None, description="catalog of the database; null: the session's current one")
    database: str | None = Field(None, description="database that takes the tables; null: they are folders of path")
    annotate_records: bool = Field(
        False,
        description="selection.jsonl, and the formats records and parquet: add id, rank, gain, labels and score to "
        "each record, under the key _mig",
    )
    exports: list[Annotated[Any, OneOf(EXPORTS, by_name=True)]] = Field(
        default_factory=list,
        description="formats that a run writes the selection in, into folders below exports: names, or sections with "
        "the key kind and a format's options",
    )
    keep_days: int = Field(30, ge=1, description="days that Delta keeps old versions of the tables, which replay reads")

    @model_validator(mode="after")
    def _one_place(self) -> OutputConfig:
        if not self.path and not self.database:
            raise ValueError("give output.path (a folder), or output.database with or without output.catalog")
        if self.catalog and not self.database:
            raise ValueError(
                "output.catalog is the catalog of output.database, which is not given, so the tables would be folders "
                "of output.path: give output.database too, or leave output.catalog out"
            )
        if self.exports and not self.path:
            raise ValueError("output.exports are folders below output.path: give one")
        kinds = [form.kind for form in self.exports]
        if twice := sorted({kind for kind in kinds if kinds.count(kind) > 1}):
            raise ValueError(f"output.exports names {twice[0]} twice: each format has one folder")
        if "`" in (self.path or ""):
            raise ValueError("output.path has a back-tick, which Delta cannot have in a table's path: give another one")
        return self


class ReportConfig(Section):
    """The report."""

    excerpts: Literal["text", "ids", "none"] = Field(
        "text",
        description="what it quotes of rows, rejected ones too. text: how they begin; ids: ids, labels and scores; "
        "none: no row at all",
    )


class TrackingConfig(Section):
    """Where runs that have ended are logged, beside the table `runs`."""

    mlflow: str | None = Field(
        None,
        min_length=1,
        description="MLflow tracking server, or folder, that each finished or failed run is logged to; env: that of "
        "MLFLOW_TRACKING_URI; null: none",
    )
    experiment: str = Field(
        "mig-spark", min_length=1, description="MLflow's experiment; it is made where it is not there"
    )
    wait_seconds: float = Field(60.0, gt=0, description="seconds that a run which has ended waits for it at most")


class SparkConfig(Section):
    """The local session. On Databricks, EMR and under spark-submit the session is taken as it is."""

    master: str | None = Field(
        None, description="Spark master of a local session; null: local[N], N the cores that this process may use"
    )
    remote: str | None = Field(
        None,
        description="address of a Spark Connect server, sc://HOST:PORT, or local[N] for one that this process starts; "
        "null: that in the variable SPARK_REMOTE, else a classic session",
    )
    driver_memory: Annotated[str, AfterValidator(heap_size)] = Field(
        "2g", description="heap of the local driver's JVM: a number and k, m, g or t"
    )
    jars_dir: str | None = Field(
        None, description="folder with the jars of Delta and GraphFrames; null: they come from a Maven repository"
    )
    jvm_options: str = Field(
        "",
        description="further options of the local JVM, separated by blanks; empty: for stages over a pool of files of "
        "100 MB at most, the quick compiler alone (C1), and the serial garbage collector where no other one is chosen "
        "(in JAVA_TOOL_OPTIONS, spark-defaults.conf or the like)",
    )
    conf: dict[str, str] = Field(
        default_factory=dict,
        description="further Spark settings of the local session, by name; for such a pool queries are not "
        "planned again while they run, unless settings here say so",
    )


class LockConfig(Section):
    """One run at a time into the same tables."""

    enabled: bool = Field(True, description="false: nothing keeps two runs apart but Delta's own conflict checks")
    # a run that waits looks every five seconds, and its claim is to be renewed before it lapses
    lease_minutes: float = Field(10.0, ge=0.2, description="minutes that a driver which died blocks other runs at most")
    wait_minutes: float = Field(15.0, ge=0, description="minutes that a run waits for another one to end")


class GatesConfig(Section):
    """What must hold before a selection is published; where it does not, the one published before stays."""

    min_rows: int | None = Field(None, ge=0, description="least number of annotated rows; null: not checked")
    max_rejected_share: float | None = Field(
        None, ge=0, le=1, description="largest share of rejected rows among all that were read; null: not checked"
    )
    min_label_coverage: float | None = Field(
        None, ge=0, le=1, description="least share of rows with a label among all annotated; null: not checked"
    )
    max_label_drift: float | None = Field(
        None,
        ge=0,
        le=1,
        description="largest total variation distance between this run's label shares and the last published ones",
    )


class IncrementalConfig(Section):
    """What a scheduled run does with the selection of the last one."""

    select: Literal["extend", "refresh"] = Field(
        "extend", description="extend: what was selected stays, the budget grows; refresh: select anew, tell what moved"
    )
    add: int | None = Field(None, ge=0, description="extend: rows to add a run; null: up to select.budget in all")

    @model_validator(mode="after")
    def _add_is_of_extend(self) -> IncrementalConfig:
        if self.add is not None and self.select == "refresh":
            raise ValueError("add has no effect with select: refresh, which chooses select.budget rows; leave it out")
        return self


class Config(Section):
    """A whole run."""

    preset: Literal["published"] | None = Field(
        None,
        description="published: keys of screen, graph and select that are not given are those of the published tool "
        "(docs/parameters.md); null: the defaults of this page",
    )
    mode: Literal["full", "incremental"] = Field("full", description="incremental: read only what has changed")
    pool: PoolConfig = Field(description="where the rows come from")
    output: OutputConfig = Field(description="where the tables, the selection and the report go")
    screen: ScreenConfig = Field(ScreenConfig(), description="which rows are left out before they are annotated")
    annotate: AnnotateConfig = Field(default_factory=AnnotateConfig, description="who labels and scores the rows")
    vocabulary: VocabularyConfig = Field(VocabularyConfig(), description="from raw tags to labels; off by default")
    graph: GraphConfig = Field(GraphConfig(), description="which labels are joined, and how information flows")
    select: SelectConfig = Field(SelectConfig(), description="how many rows are taken, and how they are chosen")
    incremental: IncrementalConfig = Field(
        IncrementalConfig(), description="with mode: incremental, what becomes of the last selection"
    )
    gates: GatesConfig = Field(GatesConfig(), description="what must hold before a selection is published")
    report: ReportConfig = Field(ReportConfig(), description="what the report shows")
    evaluate: EvaluateConfig = Field(
        EvaluateConfig(), description="what `mig-spark evaluate` compares selections by; no run goes by it"
    )
    tracking: TrackingConfig = Field(TrackingConfig(), description="where runs that have ended are logged")
    lock: LockConfig = Field(LockConfig(), description="one run at a time into the same tables")
    spark: SparkConfig = Field(SparkConfig(), description="the local session; others are taken as they are")
    seed: int = Field(
        0,
        ge=0,
        lt=2**63,
        description="seed of the random selection that a certificate compares with, of induce, and of "
        "graph.threshold: auto; strategies, and what select chooses from the pool, have select.seed",
    )

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, given: Any) -> Any:
        wanted = isinstance(given, Mapping) and given.get("preset") == "published"
        return published(given) if wanted else given

    def own_columns(self) -> tuple[str, ...]:
        """The columns of the annotated pool that `select.quotas`, `select.cost` and the strategy may name; any other
        name is one of the user's records."""
        return tuple(name for name in OWN_COLUMNS if name != "tokens" or self.annotate.tokenizer is not None)

    @model_validator(mode="after")
    def _invariant_is_of_shares_received(self) -> Config:
        if self.select.propagation == "invariant" and self.graph.normalize != "receiver":
            raise ValueError(INVARIANT_NEEDS_RECEIVER)
        return self

    @model_validator(mode="after")
    def _groups_and_quotas(self) -> Config:
        if self.screen.max_per_group is None:
            return self
        without = "set screen.near_duplicates.max_per_group: null, and groups are found and told, but limit nothing"
        if self.select.quotas is not None:
            raise ValueError(
                "screen.near_duplicates.max_per_group and select.quotas both put rows into classes, and a row has one "
                f"class: leave out the quotas, or {without}"
            )
        if "quotas" not in self.select.strategy.goes_by:
            raise ValueError(
                f"strategy: {self.select.strategy.kind} does not go by classes of rows, so it cannot keep to "
                f"screen.near_duplicates.max_per_group: {without}"
            )
        return self

    def record_columns(self) -> list[str]:
        """The columns of the user's records that `select.quotas`, `select.cost` and the strategy name."""
        own = self.own_columns()
        return [name for name in dict.fromkeys(self.select.columns()) if name not in own]

    def counts_tokens(self) -> bool:
        """Whether the rows' tokens are counted: where a tokenizer is named, and where something needs them."""
        wanted = "tokens" in self.select.columns() and "tokens" not in self.record_columns()
        return wanted or "tokens" in self.annotate.score.controls or self.annotate.tokenizer not in (None, "auto")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, keys as in YAML."""
        return self.model_dump(mode="json", by_alias=True)

    def hash(self) -> str:
        """sha256 of everything that can change a result: all but the session, the lock, the report, the evaluation,
        tracking, and where output goes."""
        plain = {k: v for k, v in self.to_dict().items() if k not in _DECIDES_NOTHING}
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
