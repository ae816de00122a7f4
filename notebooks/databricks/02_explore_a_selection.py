# Databricks notebook source
# MAGIC %md
# MAGIC # Explore a selection
# MAGIC The whole flow on the sample that comes with the package (517 questions and answers without labels or scores), then
# MAGIC four questions about its result: what was taken, what that changed, why this row and not that one, and how it differs
# MAGIC from another selection.
# MAGIC
# MAGIC A small embedding model labels the rows, so the first run takes a minute or two.

# COMMAND ----------

# MAGIC %md
# MAGIC **Before you start:** use classic compute (a dedicated cluster) with the wheel of mig-spark and its extra `embed`
# MAGIC installed. Tables and files go below `folder`, a folder of a volume, which every node sees.

# COMMAND ----------

dbutils.widgets.text("folder", "/Volumes/main/default/mig/notebooks", "Folder of a volume")
folder = dbutils.widgets.get("folder")

# COMMAND ----------

# MAGIC %md
# MAGIC ## The pool
# MAGIC Executors read the pool, so it has to lie where all of them can read it: the sample is copied into `folder`. For a
# MAGIC pool of your own leave this cell out, and give its path in the next one.

# COMMAND ----------

import shutil
from pathlib import Path

from mig_spark.data import sample_paths

sample = Path(folder) / "sample"
sample.mkdir(parents=True, exist_ok=True)
for path in sample_paths():
    shutil.copyfile(path, sample / path.name)

# COMMAND ----------

# MAGIC %md
# MAGIC ## The run
# MAGIC The keys are those of a YAML config (`mig-spark config` prints all of them); what is not given has its default. A run
# MAGIC passes over what was done before: run the cell a second time, and it ends at once.

# COMMAND ----------

from mig_spark import build_config, run_pipeline

config = build_config(
    {"pool": {"path": str(sample)}, "output": {"path": f"{folder}/sample-out"}, "select": {"budget": 100}}
)
run = run_pipeline(spark, config, run_id="first")
certificate = run["certificate"]

# COMMAND ----------

# MAGIC %md
# MAGIC ## What became of the rows
# MAGIC Nothing is dropped silently: rows that cannot be used are in the table `rejected`, with the reason.

# COMMAND ----------

import pandas as pd

counts = run["counts"]
print(f"read {counts['ingest']['read']}, usable {counts['ingest']['pool']}, selected {counts['select']['selected']}")
pd.Series(counts["ingest"]["rejected"], name="rejected rows").to_frame()

# COMMAND ----------

# MAGIC %md
# MAGIC ## What was taken
# MAGIC Every stage writes a Delta table; `Store` reads them. The table `selection` has the order, `pool` the texts.

# COMMAND ----------

from mig_spark.contracts import ANNOTATED, LABELS, POOL, SELECTION
from mig_spark.lakehouse.tables import Store

store = Store(spark, config.output)
selection = store.read(SELECTION).orderBy("rank").toPandas()
texts = store.read(POOL).selectExpr("id", "messages[0].content as question").toPandas().set_index("id")["question"]
shown = selection.head(6).assign(question=selection["id"].map(texts).str.slice(0, 60))
shown[["rank", "gain", "score", "labels", "question"]].round(1)

# COMMAND ----------

# MAGIC %md
# MAGIC ## How much the selection carries, and how soon
# MAGIC The objective says how much information a set of rows carries. On the left that of the first rows of the selection,
# MAGIC beside as many rows drawn at random; on the right what each row added.

# COMMAND ----------

import matplotlib.pyplot as plt

by_chance = pd.DataFrame(certificate["random_curve"])
fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
left.plot(selection["rank"], selection["objective"], label="selection")
left.plot(by_chance["rank"], by_chance["objective"], ":", color="gray", label="random rows")
left.set(xlabel="rows", ylabel="objective", title="Information of the first rows", ylim=(0, None))
left.legend()
right.plot(selection["rank"], selection["gain"], marker=".")
right.set(xlabel="rank", ylabel="gain", title="What each row added", ylim=(0, None))
plt.show()

# COMMAND ----------

# MAGIC %md
# MAGIC ## What it did to labels and scores
# MAGIC A selection should cover more of the labels than random rows do, without falling for poor rows. The report
# MAGIC (`report.html` in the output folder) has these and more.

# COMMAND ----------

annotated = store.read(ANNOTATED).select("id", "labels", "score").toPandas()
taken = annotated["id"].isin(selection["id"])
fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")

covered = selection["labels"].explode().to_frame("label").assign(rank=selection["rank"]).drop_duplicates("label")
reached = covered["rank"].value_counts().sort_index().cumsum()
left.plot(reached.index, reached / store.read(LABELS).count())
left.set(xlabel="rows", ylabel="share of all labels", title="Labels that the first rows carry", ylim=(0, 1))

bins = range(0, 11)
right.hist([annotated["score"], annotated.loc[taken, "score"]], bins=bins, density=True, label=["pool", "selection"],
           color=["lightgray", "tab:blue"])
right.set(xlabel="score", ylabel="share of the rows", title="Scores before and after")
right.legend()
plt.show()

# COMMAND ----------

# MAGIC %md
# MAGIC ## Why this row, and why not that one?
# MAGIC `explain_rows` says of a selected row what each label added, and of a row passed over which pick outdid it and the
# MAGIC score that would have taken it. Here the third row of the selection, and a row that was passed over.

# COMMAND ----------

from mig_spark.explain import describe, explain_pool, explain_rows

passed_over = annotated.loc[~taken].sort_values(["score", "id"], ascending=[False, True])["id"].iloc[0]
for row in (selection["id"].iloc[2], passed_over):
    print(texts[row][:100])
    print(describe(explain_rows(spark, config, [row])), end="\n\n")

# COMMAND ----------

# MAGIC %md
# MAGIC `explain_pool` says it of every row, as a DataFrame.

# COMMAND ----------

fates = explain_pool(spark, config)
fates.groupBy("status").count().orderBy("status").toPandas()

# COMMAND ----------

# MAGIC %md
# MAGIC The rows that came nearest to being taken: the least rise of the score would have been enough.

# COMMAND ----------

near = fates.where("status = 'passed over' and score_needed > score").selectExpr("id", "score", "score_needed")
near = near.orderBy("score_needed", "id").limit(5).toPandas()
near.assign(question=near["id"].map(texts).str.slice(0, 70))[["score", "score_needed", "question"]].round(3)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Against another selection
# MAGIC The same pool once more with the paper's exact gain in place of its gradient. Labels and scores are there already, so
# MAGIC only the selection and what follows it are made anew. `compare_selections` takes the ids of two runs, or lists of ids
# MAGIC in files.

# COMMAND ----------

from mig_spark.compare import compare_selections, describe_comparison

exact = build_config({**config.model_dump(by_alias=True, exclude_unset=True), "select": {"budget": 100, "gain": "exact"}})
run_pipeline(spark, exact, run_id="exact")
found = compare_selections(spark, config, "first", "exact")
print(describe_comparison(found))

# COMMAND ----------

# MAGIC %md
# MAGIC How much two selections share depends on how far down one looks.

# COMMAND ----------

prefixes = pd.DataFrame(found.prefixes, columns=["first", "in both"])
fig, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
axes.plot(prefixes["first"], prefixes["in both"] / prefixes["first"], marker="o", label="the two selections")
axes.plot(prefixes["first"], [found.by_chance(k) / k for k in prefixes["first"]], ":", color="gray", label="by chance")
axes.set(xlabel="first rows of both", ylabel="share that is in both", ylim=(0, 1.05))
axes.legend()
plt.show()

# COMMAND ----------

# MAGIC %md
# MAGIC Tables and report are now those of the run `exact`. Run the cell of the first run again, and they are the first ones
# MAGIC once more.
