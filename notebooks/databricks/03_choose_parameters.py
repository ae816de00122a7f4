# Databricks notebook source
# MAGIC %md
# MAGIC # Choose parameters
# MAGIC Three numbers decide what a selection looks like: from which similarity on two labels count as near
# MAGIC (`graph.threshold`), how fast a label's worth falls with each row that carries it (`select.phi.b`), and how many rows
# MAGIC are taken (`select.budget`). For each of them: what the package suggests, and the evidence as a plot, so that you can
# MAGIC decide otherwise.
# MAGIC
# MAGIC The pool is the sample of `02_explore_a_selection`. Where that notebook was run before, in the same folder, its labels
# MAGIC and scores are found and not made again.

# COMMAND ----------

# MAGIC %md
# MAGIC **Before you start:** use classic compute (a dedicated cluster) with the wheel of mig-spark and its extra `embed`
# MAGIC installed. Tables and files go below `folder`, a folder of a volume, which every node sees.

# COMMAND ----------

dbutils.widgets.text("folder", "/Volumes/main/default/mig/notebooks", "Folder of a volume")
folder = dbutils.widgets.get("folder")

# COMMAND ----------

# MAGIC %md
# MAGIC ## An annotated pool
# MAGIC Parameters are chosen for rows that have labels and scores: so the stages up to `annotate` come first.

# COMMAND ----------

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

# COMMAND ----------

# MAGIC %md
# MAGIC ## What `auto` would choose
# MAGIC `tune` tries it on your pool and writes nothing. `mig-spark tune CONFIG` prints the same.

# COMMAND ----------

from mig_spark.tune import describe_tuned, tune

tuned = tune(spark, config)
print(describe_tuned(tuned))

# COMMAND ----------

# MAGIC %md
# MAGIC ## The threshold of the label graph
# MAGIC Labels at least so similar are joined, and then share information. Too high, and labels that mean the same count
# MAGIC twice; too low, and everything runs together into one component, and any row covers it. `auto` stays clear of that
# MAGIC collapse.

# COMMAND ----------

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

# COMMAND ----------

# MAGIC %md
# MAGIC Look at the labels that a threshold joins: do they mean the same? These are the pairs that the chosen threshold joins
# MAGIC and the default does not.

# COMMAND ----------

from mig_spark.contracts import LABEL_EDGES
from mig_spark.lakehouse.tables import Store

tuned_config = build_config({**settings, "graph": {"threshold": "auto"}})
run = run_pipeline(spark, tuned_config, run_id="tuned")
edges = Store(spark, config.output).read(LABEL_EDGES).where("kind = 'similarity'").toPandas()
more = edges[edges["weight"] < 0.75].sort_values("weight", ascending=False)
print(f"{len(edges)} pairs at threshold {run['counts']['graph']['threshold']:g}, {len(more)} of them below 0.75")
more[["src", "dst", "weight"]].head(8).round(3)

# COMMAND ----------

# MAGIC %md
# MAGIC ## The exponent `phi.b`
# MAGIC With b near 1 a label is worth as much the hundredth time as the first, and the best scores win. With b near 0 the
# MAGIC first row of a label counts most, and the selection spreads out. On the sample `auto` leaves it alone: 200 rows are
# MAGIC too few for 730 labels to say anything about it. So here is a larger pool with fewer labels, in which good scores and
# MAGIC rare labels pull in different directions.

# COMMAND ----------

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

# COMMAND ----------

# MAGIC %md
# MAGIC Each point is a whole selection. To the right the scores are better, upwards more labels get a fair share. `auto` takes
# MAGIC the smallest b that keeps 95% of the score (`phi.score_share`).

# COMMAND ----------

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

# COMMAND ----------

# MAGIC %md
# MAGIC ## How many rows
# MAGIC The first k rows of a selection are the selection of the budget k, so one large selection tells all smaller ones. The
# MAGIC knee is the rank from which on a row adds less than the mean of all rows.

# COMMAND ----------

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

# COMMAND ----------

# MAGIC %md
# MAGIC ## Into the config
# MAGIC What you decided goes into the config as numbers, or as `auto`, which decides anew for each pool and keeps what it
# MAGIC chose in the run's record:
# MAGIC
# MAGIC ```yaml
# MAGIC graph:
# MAGIC   threshold: auto
# MAGIC select:
# MAGIC   budget: 200
# MAGIC   phi:
# MAGIC     b: auto
# MAGIC ```
# MAGIC
# MAGIC What these settings do to pools whose tasks are known is measured in docs/parameters.md. No setting was found that is
# MAGIC better on every pool.
