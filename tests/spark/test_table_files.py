"""What tables are on disk: Parquet files as their contracts say."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as sf

from mig_spark.config import OutputConfig
from mig_spark.contracts import MESSAGES_TYPE, SCRATCH, TABLES, Column, Table
from mig_spark.lakehouse.tables import Store

#: A value of each type that a column of these tables has, in SQL; other columns are null.
VALUES = {
    "string": "'one value for all rows'",
    "bigint": "7L",
    "int": "7",
    "double": "7.5D",
    "timestamp": "timestamp '2026-01-01 00:00:00'",
    "array<string>": "array('one label', 'another')",
    "array<float>": "array(0.5F, 0.25F)",
    MESSAGES_TYPE: f"cast(array(named_struct('role', 'user', 'content', 'one text')) as {MESSAGES_TYPE})",
}


@pytest.mark.parametrize("table", [t for t in (*TABLES.values(), *SCRATCH) if t.seldom_twice], ids=lambda t: t.name)
def test_no_dictionary_is_tried_for_values_that_seldom_recur(spark: SparkSession, tmp_path: Path, table: Table) -> None:
    def value(column: Column) -> str:
        if column.name == "stage":  # of REJECTED, which has a rule for it
            return "'ingest'"
        return VALUES.get(column.type, f"cast(null as {column.type})")

    # the same in all rows: by themselves Spark's writers would keep a dictionary
    rows = spark.range(500).select(*(sf.expr(value(c)).alias(c.name) for c in table.columns))
    store = Store(spark, OutputConfig(path=str(tmp_path)))
    store.write(table, rows)
    dictionaries: dict[str, bool] = {}
    for file in Path(store.location(table)).rglob("*.parquet"):
        if "_delta_log" not in file.parts:
            group = pq.ParquetFile(file).metadata.row_group(0)
            chunks = [group.column(k) for k in range(group.num_columns)]
            dictionaries |= {c.path_in_schema: any("DICTIONARY" in e for e in c.encodings) for c in chunks}
    assert {name: dictionaries[name] for name in table.seldom_twice} == dict.fromkeys(table.seldom_twice, False)
    others = dictionaries.keys() - set(table.seldom_twice)
    assert not others or any(dictionaries[name] for name in others)
