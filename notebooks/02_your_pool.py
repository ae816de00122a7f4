# %% [markdown]
# # Your own pool
# The whole flow as `mig-spark run` does it: ingest, screen, annotate, graph, select, report. Set `pool_path` to your file,
# folder, glob or catalog table and `output_path` to a folder that the executors see too; nothing else is needed.
# With `annotation` empty, labels come from a small embedding model and scores from rules over the text.

# %%
import json
import tempfile
from pathlib import Path

pool_path = None
output_path = tempfile.mkdtemp(prefix="mig-")
annotation = {}

# %% [markdown]
# Without a pool of yours this makes a small one that brings its labels and scores, with three records that cannot be used.

# %%
if pool_path is None:
    topics = ["python", "sql", "algebra", "geometry", "history", "cooking", "law", "medicine"]
    records = [
        {
            "id": f"row-{k:02d}",
            "messages": [
                {"role": "user", "content": f"A question about {topics[k % 8]}, number {k}"},
                {"role": "assistant", "content": f"An answer, number {k}"},
            ],
            "labels": sorted({topics[k % 8], topics[(3 * k) % 8]}),
            "score": 1 + k % 5,
        }
        for k in range(40)
    ]
    unusable = ["{broken", json.dumps({"id": "silent", "messages": []}), json.dumps({**records[0], "score": -1})]
    edge = {"src": "algebra", "dst": "geometry", "weight": 0.92}
    folder = Path(output_path)
    (folder / "pool.jsonl").write_text("\n".join([*map(json.dumps, records), *unusable]), encoding="utf-8")
    (folder / "edges.jsonl").write_text(json.dumps(edge), encoding="utf-8")
    pool_path = str(folder / "pool.jsonl")
    annotation = {
        "annotate": {"tagger": {"kind": "column"}, "scorer": {"kind": "column"}},
        "graph": {"edges_path": str(folder / "edges.jsonl")},
    }

# %% [markdown]
# ## The config
# The same keys as in YAML; `mig-spark config` lists them all.

# %%
from mig_spark import build_config, run_pipeline

config = build_config(
    {"pool": {"path": pool_path}, "output": {"path": output_path}, "select": {"budget": 10}, **annotation}
)

# %% [markdown]
# ## The run
# On a managed platform the session is the platform's. Here one is started where none is active.

# %%
from mig_spark.lakehouse.session import get_session

spark = get_session(config.spark).spark
run = run_pipeline(spark, config)
run["run_id"], run["counts"]

# %% [markdown]
# ## The selection
# In order, with what each row added. `selection.jsonl` has the records themselves, as they came, in the same order.

# %%
from mig_spark.contracts import REJECTED, SELECTION
from mig_spark.lakehouse.tables import Store

store = Store(spark, config.output)
selection = store.read(SELECTION).orderBy("rank").toPandas()
selection[["rank", "id", "gain", "score", "labels"]]

# %% [markdown]
# ## What could not be used
# Nothing is dropped silently: the stage, the reason and the record's own text.

# %%
rejected = store.read(REJECTED).select("stage", "reason", "detail", "raw").toPandas()
rejected

# %% [markdown]
# ## The report
# One HTML file that needs no network: the funnel, the labels before and after, the gain curve, rejected rows.

# %%
report = run["files"]["report"]
print(report)
