# %% [markdown]
# # Your own tables
# A pool in a table with column names of your own, results in tables beside it, and a second run when rows were added.
# The same cells serve a laptop and a cluster; only the names of the tables differ.
#
# **Which paths?** On a cluster executors read the pool and write the tables, so every path has to mean the same on
# every node: a catalog's table, a volume, `s3://...`, `abfss://...`, `hdfs://...`. A folder below `/tmp` of the driver
# is not such a path.

# %% [markdown] tags=["databricks"]
# **Before you start:** use classic compute (a dedicated cluster) with the wheel of mig-spark installed. The catalog, the
# schema and the volume have to be there. `pool_table` is written by this notebook; give the name of a table that is not
# there yet.

# %% tags=["databricks"]
dbutils.widgets.text("catalog", "main", "Catalog")
dbutils.widgets.text("schema", "mig_notebooks", "Schema for all tables")
dbutils.widgets.text("folder", "/Volumes/main/mig_notebooks/files", "Volume for report.html and selection.jsonl")
catalog, schema, folder = (dbutils.widgets.get(name) for name in ("catalog", "schema", "folder"))
pool_table = f"{catalog}.{schema}.questions"
output = {"catalog": catalog, "database": schema, "path": folder}


def write_pool(rows, mode):
    """Write rows into the table of the pool."""
    rows.write.format("delta").mode(mode).saveAsTable(pool_table)


# %% [markdown] tags=["laptop"]
# **Before you start:** `pip install 'mig-spark[local,notebooks]'`, or `make setup` in a checkout. Tables are Delta
# folders below `folder`. Where you have a catalog, a name such as `main.default.questions` goes in the same places.

# %% tags=["laptop"]
from mig_spark.config import SparkConfig
from mig_spark.lakehouse.session import SHORT_RUN_CONF, SHORT_RUN_JVM, get_session

folder = "mig-notebooks"
pool_table = f"{folder}/questions"
output = {"path": f"{folder}/questions-out"}
# settings that suit a few thousand rows
spark = get_session(SparkConfig(jvm_options=SHORT_RUN_JVM, conf=SHORT_RUN_CONF)).spark


def write_pool(rows, mode):
    """Write rows into the table of the pool."""
    rows.write.format("delta").mode(mode).save(pool_table)


# %% [markdown]
# ## A table as you may have it
# Questions and answers with topics and a rating: columns with names of your own. Some rows cannot be used: an empty
# answer, a rating below zero.

# %%
import random

topics = ["python", "sql", "algebra", "geometry", "history", "cooking", "law", "medicine"]
draw = random.Random(3)


def make_rows(first, last):
    """Rows as a DataFrame: key, question, answer, topics, rating."""
    rows = []
    for k in range(first, last):
        about = sorted(draw.sample(topics, draw.randint(1, 3)))
        rating = -1.0 if k % 97 == 96 else round(draw.uniform(1, 5), 1)
        answer = "" if k % 89 == 88 else f"An answer about {' and '.join(about)}, number {k}."
        rows.append((f"q-{k:04d}", f"A question about {' and '.join(about)}, number {k}?", answer, about, rating))
    return spark.createDataFrame(rows, "key string, question string, answer string, topics array<string>, rating double")


write_pool(make_rows(0, 400), "overwrite")

# %% [markdown]
# ## The config
# `pool.columns` says which of your columns has which role. The table brings labels and a score, so nothing has to be
# annotated: `kind: column` takes them as they are. Labels that rows often carry together are joined
# (`graph.edges: cooccurrence`), so no model is needed at all.

# %%
from mig_spark import build_config, run_pipeline

config = build_config(
    {
        "pool": {
            "path": pool_table,
            "columns": {"id": "key", "prompt": "question", "response": "answer", "labels": "topics", "score": "rating"},
        },
        "output": output,
        "annotate": {"tagger": {"kind": "column"}, "scorer": {"kind": "column"}},
        "graph": {"edges": "cooccurrence"},
        "select": {"budget": 40},
    }
)
run = run_pipeline(spark, config, run_id="first")
print(f"{run['counts']['ingest']['read']} rows read, {run['counts']['ingest']['pool']} usable, "
      f"{run['counts']['select']['selected']} selected")

# %% [markdown]
# ## The tables
# All results are Delta tables, which you can read by Spark, SQL or any tool that knows Delta. `Store` reads them by
# name; `docs/tables.md` has their columns.

# %%
from mig_spark.contracts import REJECTED, RUNS, SELECTION
from mig_spark.lakehouse.tables import Store

store = Store(spark, config.output)
store.read(SELECTION).orderBy("rank").select("rank", "id", "gain", "score", "labels").limit(5).toPandas().round(3)

# %% [markdown]
# Rows that could not be used, by reason.

# %%
store.read(REJECTED).groupBy("stage", "reason").count().orderBy("stage", "reason").toPandas()

# %% [markdown]
# Back to your own table: the rows that were taken, in order.

# %%
from mig_spark.lakehouse.lookup import what_is

own = spark.table(pool_table) if what_is(spark, pool_table) == "table" else spark.read.format("delta").load(pool_table)
taken = store.read(SELECTION).selectExpr("id as key", "rank")
own.join(taken, "key").orderBy("rank").select("rank", "key", "question", "rating").limit(5).toPandas()

# %% [markdown]
# ## Nothing is done twice
# The same run once more: every stage has been done from the same rows with the same settings, so each is passed over.

# %%
run_pipeline(spark, config, run_id="again")["skipped"]

# %% [markdown]
# ## When rows are added
# A hundred more rows, and `mode: incremental`: only what is new is read and annotated, and the selection is extended by
# as many rows as you say. Those that were chosen before stay, in their order.

# %%
write_pool(make_rows(400, 500), "append")
more = config.model_copy(
    update={
        "mode": "incremental",
        "incremental": config.incremental.model_copy(update={"add": 10}),
    }
)
before = [row.id for row in store.read(SELECTION).orderBy("rank").collect()]
run_pipeline(spark, more, run_id="more")
after = [row.id for row in store.read(SELECTION).orderBy("rank").collect()]
print(f"{len(before)} rows before, {len(after)} after; the first {len(before)} are the same: {after[:40] == before}")
print("of the new ones, rows that were added:", sum(name >= "q-0400" for name in after[40:]))

# %% [markdown]
# ## What is on record
# Each run with what it did. `replay` makes any of them again from the versions of the tables that it read.

# %%
store.read(RUNS).orderBy("started_at").select("run_id", "status", "command").toPandas()
