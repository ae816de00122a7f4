"""A whole run: where rows come from, where tables go, and every stage between."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import Field, model_validator

from mig_spark.config.annotate import AnnotateConfig
from mig_spark.config.base import Section
from mig_spark.config.labels import GraphConfig, VocabularyConfig
from mig_spark.config.select import SelectConfig


class PoolConfig(Section):
    """Where the rows come from and how to read them."""

    path: str | list[str] = Field(description="file, folder, glob, Delta path or catalog table; or a list of them")
    format: Literal["auto", "delta", "parquet", "jsonl", "json"] = "auto"
    schema_: Literal["auto", "alpaca", "pair", "sharegpt", "messages", "mig"] = Field("auto", alias="schema")
    columns: dict[
        Literal[
            "id",
            "source",
            "prompt",
            "response",
            "input",
            "system",
            "messages",
            "labels",
            "score",
            "quality",
            "complexity",
        ],
        str,
    ] = Field(default_factory=dict, description="your column's name for its role, e.g. {prompt: question}; '' for none")
    source: str | None = Field(None, description="one source name for all rows that bring none")
    max_record_bytes: int = Field(16 << 20, ge=1, description="records with more bytes of text are rejected")
    max_labels: int = Field(10_000, ge=1, description="records that bring more labels are rejected")


class OutputConfig(Section):
    """Where the tables, the selection and the report go: a folder, or a catalog and database.

    With a database the tables go there; a path as well then takes the report and the selection file.
    """

    path: str | None = None
    catalog: str | None = None
    database: str | None = None
    keep_days: int = Field(30, ge=1, description="how long Delta keeps the versions that a replay reads")

    @model_validator(mode="after")
    def _one_place(self) -> OutputConfig:
        if not self.path and not self.database:
            raise ValueError("give output.path (a folder), or output.database with or without output.catalog")
        if "`" in (self.path or ""):
            raise ValueError("output.path has a back-tick, which Delta cannot have in a table's path: give another one")
        return self


class SparkConfig(Section):
    """The local session. On Databricks, EMR and under spark-submit the session is taken as it is."""

    master: str | None = None
    driver_memory: str = "2g"
    jars_dir: str | None = Field(None, description="folder of jars, where no Maven repository is reached")
    jvm_options: str = Field("", description="further options of the local JVM")
    conf: dict[str, str] = Field(default_factory=dict)


class LockConfig(Section):
    """One run at a time into the same tables."""

    enabled: bool = True
    lease_minutes: float = Field(10.0, gt=0, description="a driver that died blocks others for so long at most")
    wait_minutes: float = Field(15.0, ge=0, description="how long a run waits for another one to end")


class GatesConfig(Section):
    """What must hold before a selection is published; where it does not, the one published before stays."""

    min_rows: int | None = Field(None, ge=0, description="rows that can be selected from")
    max_rejected_share: float | None = Field(None, ge=0, le=1, description="rejected rows of all that were read")
    min_label_coverage: float | None = Field(None, ge=0, le=1, description="rows with a label, of all annotated")
    max_label_drift: float | None = Field(
        None, ge=0, le=1, description="total variation between the label shares of this run and the last published one"
    )


class IncrementalConfig(Section):
    """What a scheduled run does with the selection of the last one."""

    select: Literal["extend", "refresh"] = Field(
        "extend", description="extend: what was selected stays, the budget grows; refresh: select anew, tell what moved"
    )
    add: int | None = Field(None, ge=0, description="extend: rows to add a run; null: up to select.budget in all")


class Config(Section):
    """A whole run."""

    mode: Literal["full", "incremental"] = Field("full", description="incremental: read only what has changed")
    pool: PoolConfig
    output: OutputConfig
    annotate: AnnotateConfig = AnnotateConfig()
    vocabulary: VocabularyConfig = VocabularyConfig()
    graph: GraphConfig = GraphConfig()
    select: SelectConfig = SelectConfig()
    incremental: IncrementalConfig = IncrementalConfig()
    gates: GatesConfig = GatesConfig()
    lock: LockConfig = LockConfig()
    spark: SparkConfig = SparkConfig()
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, keys as in YAML."""
        return self.model_dump(mode="json", by_alias=True)

    def hash(self) -> str:
        """sha256 of everything that can change a result: all but the session, the lock, and where output goes."""
        plain = {k: v for k, v in self.to_dict().items() if k not in ("spark", "output", "lock")}
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
