# %% [markdown]
# # Choose parameters
# Three numbers decide what a selection looks like: from which similarity on two labels count as near
# (`graph.threshold`), how fast a label's worth falls with each row that carries it (`select.phi.b`), and how many rows
# are taken (`select.budget`). For each of them: what the package suggests, and the evidence as a plot, so that you can
# decide otherwise.
#
# The pool is the sample of `02_explore_a_selection`. Where that notebook was run before, in the same folder, its labels
# and scores are found and not made again.

# %% [markdown] tags=["databricks"]
# **Before you start:** use classic compute (a dedicated cluster) with the wheel of mig-spark and its extra `embed`
# installed. Tables and files go below `folder`, a folder of a volume, which every node sees.

# %% tags=["databricks"]
dbutils.widgets.text("folder", "/Volumes/main/default/mig/notebooks", "Folder of a volume")
folder = dbutils.widgets.get("folder")

# %% [markdown] tags=["laptop"]
# **Before you start:** `pip install 'mig-spark[local,embed,notebooks]'`, or `make setup` in a checkout. Tables and
# files go below `folder`.

# %% tags=["laptop"]
from mig_spark.config import SparkConfig
from mig_spark.lakehouse.session import SHORT_RUN_CONF, SHORT_RUN_JVM, get_session

folder = "mig-notebooks"
# settings that suit a few thousand rows
spark = get_session(SparkConfig(jvm_options=SHORT_RUN_JVM, conf=SHORT_RUN_CONF)).spark

# %% [markdown]
# ## An annotated pool
# Parameters are chosen for rows that have labels and scores: so the stages up to `annotate` come first.

# %%
import shutil
from pathlib import Path

from mig_spark import build_config, run_pipeline
from mig_spark.data import sample_paths

sample = Path(folder) / "sample"
sample.mkdir(parents=True, exist_ok=True)
for path in sample_paths():
    shutil.copyfile(path, sample / path.name)

settings = {"pool": {"path": str(sample)}, "output": {"path": f"{folder}/sample-out"}, "select": {"budget": 200}}
config = build_config(settings)
run = run_pipeline(spark, config, ["ingest", "screen", "annotate"], fresh=False, run_id="annotated")
print(run["counts"]["annotate"]["annotated"], "rows have labels and scores")

# %% [markdown]
# ## What `auto` would choose
# `tune` tries it on your pool and writes nothing. `mig-spark tune CONFIG` prints the same.

# %%
from mig_spark.tune import describe_tuned, tune

tuned = tune(spark, config)
print(describe_tuned(tuned))

# %% [markdown]
# ## The threshold of the label graph
# Labels at least so similar are joined, and then share information. Too high, and labels that mean the same count
# twice; too low, and everything runs together into one component, and any row covers it. `auto` stays clear of that
# collapse.

# %%
import matplotlib.pyplot as plt
import pandas as pd

curve = pd.DataFrame([(p.threshold, p.edges, p.largest)
                      for p in tuned.threshold.curve], columns=["threshold", "edges", "largest"])
labels = curve["largest"].max()
fig, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
axes.plot(curve["threshold"], curve["largest"] / labels, label="labels in the largest component")
axes.axvline(tuned.threshold.threshold, linestyle="--", color="gray", label=f"auto: {tuned.threshold.threshold:g}")
axes.axvline(0.75, linestyle=":", color="tab:orange", label="default for this model: 0.75")
axes.set(xlabel="threshold", ylabel="share of all labels", ylim=(0, 1.05))
axes.legend(loc="lower left")
plt.show()

# %% [markdown]
# Look at the labels that a threshold joins: do they mean the same? These are the pairs that the chosen threshold joins
# and the default does not.

# %%
from mig_spark.contracts import LABEL_EDGES
from mig_spark.lakehouse.tables import Store

tuned_config = build_config({**settings, "graph": {"threshold": "auto"}})
run = run_pipeline(spark, tuned_config, run_id="tuned")
edges = Store(spark, config.output).read(LABEL_EDGES).where("kind = 'similarity'").toPandas()
more = edges[edges["weight"] < 0.75].sort_values("weight", ascending=False)
print(f"{len(edges)} pairs at threshold {run['counts']['graph']['threshold']:g}, {len(more)} of them below 0.75")
more[["src", "dst", "weight"]].head(8).round(3)

# %% [markdown]
# ## The exponent `phi.b`
# With b near 1 a label is worth as much the hundredth time as the first, and the best scores win. With b near 0 the
# first row of a label counts most, and the selection spreads out. On the sample `auto` leaves it alone: 200 rows are
# too few for 730 labels to say anything about it. So here is a larger pool with fewer labels, in which good scores and
# rare labels pull in different directions.

# %%
import random

from mig_spark import select

topics = ["python", "sql", "algebra", "history", "cooking", "law", "medicine", "poetry", "travel", "chess"]
draw = random.Random(11)
weights = [2.0**-k for k in range(len(topics))]
rows = []
for k in range(3000):
    found = sorted(set(draw.choices(topics, weights, k=draw.randint(1, 3))))
    common = max(weights[topics.index(label)] for label in found)
    rows.append((f"row-{k:04d}", found, round(draw.uniform(1, 5) + 4 * common, 2)))
pool = pd.DataFrame(rows, columns=["id", "labels", "score"])

chosen = select(pool, 300, phi={"b": "auto"})
balance = chosen.certificate.balance
print(f"auto takes b = {balance['b']:g}; tried on {balance['rows']} rows, {balance['picks']} of them selected each time")

# %% [markdown]
# Each point is a whole selection. To the right the scores are better, upwards more labels get a fair share. `auto` takes
# the smallest b that keeps 95% of the score (`phi.score_share`).

# %%
frontier = pd.DataFrame(balance["frontier"])
fig, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
axes.plot(frontier["mean_score"], frontier["effective_labels"], marker="o", color="tab:blue")
for point in frontier.itertuples():
    axes.annotate(f"{point.b:g}", (point.mean_score, point.effective_labels), textcoords="offset points", xytext=(6, 4), fontsize=8)
picked = frontier[frontier["b"] == balance["b"]]
axes.plot(picked["mean_score"], picked["effective_labels"], "o", markersize=12, fillstyle="none", color="tab:red",
          label=f"auto: b = {balance['b']:g}")
axes.margins(x=0.08)
axes.set(xlabel="mean score of the selection", ylabel="effective number of labels", title="One selection for each b")
axes.legend()
plt.show()

# %% [markdown]
# ## How many rows
# The first k rows of a selection are the selection of the budget k, so one large selection tells all smaller ones. The
# knee is the rank from which on a row adds less than the mean of all rows.

# %%
from mig_spark.report.data import Curve
from mig_spark.report.enough import knee

ranks = chosen.to_arrow().to_pandas()
bend = knee(Curve(ranks["rank"].to_numpy(float), ranks["objective"].to_numpy(float)))
share = ranks["objective"] / ranks["objective"].iloc[-1]
fig, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
axes.plot(ranks["rank"], share)
if bend is not None:
    axes.axvline(bend, linestyle="--", color="gray", label=f"knee: {bend} rows")
    axes.legend()
axes.set(xlabel="rows", ylabel="share of the objective of all 300", ylim=(0, 1.05))
plt.show()
pd.Series({k: share[k - 1] for k in (50, 100, 150, 200, 300)}, name="share of the objective").round(3).to_frame()

# %% [markdown]
# ## Into the config
# What you decided goes into the config as numbers, or as `auto`, which decides anew for each pool and keeps what it
# chose in the run's record:
#
# ```yaml
# graph:
#   threshold: auto
# select:
#   budget: 200
#   phi:
#     b: auto
# ```
#
# What these settings do to pools whose tasks are known is measured in docs/parameters.md. No setting was found that is
# better on every pool.
