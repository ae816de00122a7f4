# %% [markdown]
# # Explore a selection
# The whole flow on the sample that comes with the package (517 questions and answers without labels or scores), then
# four questions about its result: what was taken, what that changed, why this row and not that one, and how it differs
# from another selection.
#
# A small embedding model labels the rows, so the first run takes a minute or two. Such labels are rough; docs/annotation.md
# has better ones.

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
# ## The pool
# Executors read the pool, so it has to lie where all of them can read it: the sample is copied into `folder`. For a
# pool of your own leave this cell out, and give its path in the next one.

# %%
import shutil
from pathlib import Path

from mig_spark.data import sample_paths

sample = Path(folder) / "sample"
sample.mkdir(parents=True, exist_ok=True)
for path in sample_paths():
    shutil.copyfile(path, sample / path.name)

# %% [markdown]
# ## The run
# The keys are those of a YAML config (`mig-spark config` prints all of them); what is not given has its default. A run
# passes over what was done before: run the cell a second time, and it ends at once.

# %%
from mig_spark import build_config, run_pipeline

config = build_config(
    {"pool": {"path": str(sample)}, "output": {"path": f"{folder}/sample-out"}, "select": {"budget": 200}}
)
run = run_pipeline(spark, config, run_id="first")
certificate = run["certificate"]

# %% [markdown]
# ## What became of the rows
# Nothing is dropped silently: rows that cannot be used are in the table `rejected`, with the reason.

# %%
import pandas as pd

counts = run["counts"]
print(f"read {counts['ingest']['read']}, usable {counts['ingest']['pool']}, selected {counts['select']['selected']}")
pd.Series(counts["ingest"]["rejected"], name="rejected rows").to_frame()

# %% [markdown]
# ## What was taken
# Every stage writes a Delta table; `Store` reads them. The table `selection` has the order, `pool` the texts.

# %%
from mig_spark.contracts import ANNOTATED, LABELS, POOL, SELECTION
from mig_spark.lakehouse.tables import Store

store = Store(spark, config.output)
selection = store.read(SELECTION).orderBy("rank").toPandas()
texts = store.read(POOL).selectExpr("id", "messages[0].content as question").toPandas().set_index("id")["question"]
shown = selection.head(6).assign(question=selection["id"].map(texts).str.slice(0, 60))
shown[["rank", "gain", "score", "labels", "question"]].round(1)

# %% [markdown]
# ## How much the selection carries, and how soon
# The objective says how much information a set of rows carries. On the left that of the first rows of the selection,
# beside as many rows drawn at random; on the right what each row added.

# %%
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

# %% [markdown]
# ## What it did to labels and sources
# A selection should cover more of the labels than as many rows drawn at random, and no source should crowd out the
# others. The report (`report.html` in the output folder) has these and more.

# %%
annotated = store.read(ANNOTATED).select("id", "labels", "score", "source").orderBy("id").toPandas()
all_labels = store.read(LABELS).count()


def covered(label_lists):
    """The share of all labels that the first rows carry, for one row, two rows, ..."""
    seen, shares = set(), []
    for labels in label_lists:
        seen.update(labels)
        shares.append(len(seen) / all_labels)
    return shares


fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
left.plot(selection["rank"], covered(selection["labels"]), label="selection")
drawn = annotated["labels"].sample(len(selection), random_state=0)
left.plot(selection["rank"], covered(drawn), ":", color="gray", label="random rows")
left.set(xlabel="rows", ylabel="share of all labels", title="Labels that the first rows carry", ylim=(0, 1))
left.legend()
shares = pd.DataFrame({"pool": annotated["source"].value_counts(normalize=True),
                       "selection": selection["source"].value_counts(normalize=True)}).fillna(0)
shares.sort_values("pool").plot.barh(ax=right, color=["lightgray", "tab:blue"])
right.set(xlabel="share of the rows", ylabel="", title="Sources before and after")
plt.show()

# %% [markdown]
# ## Why this row, and why not that one?
# `explain_rows` says of a selected row what each label added, and of a row passed over which pick outdid it and the
# score that would have taken it. Here the third row of the selection, and a row that was passed over.

# %%
from mig_spark.explain import describe, explain_pool, explain_rows

passed_over = annotated[~annotated["id"].isin(selection["id"])].sort_values(["score", "id"], ascending=[False, True])["id"].iloc[0]
for row in (selection["id"].iloc[2], passed_over):
    print(texts[row][:100])
    print(describe(explain_rows(spark, config, [row])), end="\n\n")

# %% [markdown]
# `explain_pool` says it of every row, as a DataFrame.

# %%
fates = explain_pool(spark, config)
fates.groupBy("status").count().orderBy("status").toPandas()

# %% [markdown]
# Rows that came near to being taken, but for those that lost a mere tie: a little more score would have been enough.

# %%
near = fates.where("status = 'passed over' and score_needed > 1.01 * score").select("id", "score", "score_needed")
near = near.orderBy(near.score_needed / near.score, "id").limit(5).toPandas()
near.assign(question=near["id"].map(texts).str.slice(0, 70))[["score", "score_needed", "question"]].round(3)

# %% [markdown]
# ## Against another selection
# What does the selection have over as many rows drawn at random? `selection` stands for the one that was published last,
# `strategy:random` for what that strategy takes of the same pool: it is computed now, and no table is written. The id of
# a run or a file with ids would do as well. `mig-spark compare` prints the same.

# %%
from mig_spark.compare import compare_selections, describe_comparison

found = compare_selections(spark, config, "selection", "strategy:random")
print(describe_comparison(found))

# %% [markdown]
# And other strategies? `top` takes the best scores, `instag` goes for many labels. How many rows does each share with
# the selection, and what does it cover? (The objective is what `mig` is made for, so it has the highest.)

# %%
sides = {"mig": found.a, "random": found.b}
common = {"mig": len(selection), "random": found.common}
for name in ("top", "instag"):
    other = compare_selections(spark, config, "selection", f"strategy:{name}")
    sides[name], common[name] = other.b, other.common
table = pd.DataFrame({name: side.measures for name, side in sides.items()}).T
table = table[["labels", "objective", "mean_score", "mean_labels", "median_answer_characters"]].astype(float)
table.assign(rows_in_common=pd.Series(common)).round(2)

# %% [markdown]
# How soon do they get there? The labels that the first rows of each carry.

# %%
fig, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
for name, side in sides.items():
    axes.plot(side.firsts.rank, side.firsts.labels, label=name, linestyle=":" if name == "random" else "-")
axes.set(xlabel="rows", ylabel="different labels", ylim=(0, None))
axes.legend()
plt.show()
