"""Where the metadata of a MERGE cannot be set, a table is written anew: with the rows that MERGE would have left."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.errors import AnalysisException

from mig_spark.config import OutputConfig
from mig_spark.contracts import SOURCE_FILES, Table
from mig_spark.lakehouse.tables import Store

#: A key and two values: file, bytes, modified_ms.
TABLE: Table = SOURCE_FILES
OLD = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 3), max_size=6)
NEW = st.dictionaries(st.sampled_from("abcdefgh"), st.tuples(st.sampled_from(["keep", "put", "drop", None]),
                                                             st.integers(0, 3)), max_size=8)  # fmt: skip
ON = {
    "on": "t.file = s.file", "delete": "s.op = 'drop'", "update": "s.op = 'put' and not (t.bytes <=> s.bytes)",
    "insert": "s.op = 'put'",
}  # fmt: skip


def rows_of(df):
    return sorted(map(tuple, df.collect()))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(old=OLD, new=NEW)
def test_rows_are_those_of_merge(spark, tmp_path_factory, old, new):
    store = Store(spark, OutputConfig(path=str(tmp_path_factory.mktemp("merges"))))
    store.write(TABLE, spark.createDataFrame([(k, v, 1) for k, v in old.items()], TABLE.ddl()))
    source = spark.createDataFrame([(k, v, 2, op) for k, (op, v) in new.items()], f"{TABLE.ddl()}, op string")
    said = rows_of(store.merged(TABLE, source, **ON))
    store.merge(TABLE, source, **ON)
    assert rows_of(store.read(TABLE)) == said


def test_a_setting_that_is_refused_leads_there_and_the_commit_has_its_metadata(spark, tmp_path, monkeypatch):
    store = Store(spark, OutputConfig(path=str(tmp_path)))
    store.write(TABLE, spark.createDataFrame([("a", 1, 1), ("b", 1, 1)], TABLE.ddl()))
    source = spark.createDataFrame([("a", 0, 2, "drop"), ("b", 2, 2, "put"), ("c", 3, 2, "put")],
                                   f"{TABLE.ddl()}, op string")  # fmt: skip

    def refuse(_, key, value):
        raise AnalysisException(f"[CONFIG_NOT_AVAILABLE] Configuration {key} is not available.")

    with monkeypatch.context() as there:
        there.setattr(type(spark.conf), "set", refuse)
        store.merge(TABLE, source, **ON, told={"records": 7})
    assert rows_of(store.read(TABLE)) == [("b", 2, 2), ("c", 3, 2)]
    newest = store.newest(TABLE)
    assert newest.operation == "WRITE"
    assert newest.told["records"] == 7
    with pytest.raises(AnalysisException):
        spark.sql("select no_such_column")
