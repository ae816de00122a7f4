# %% [markdown]
# # Quickstart: select from a DataFrame
# mig-spark takes rows one by one, each time the one that adds the most information. All it needs of a row is an id,
# labels (what the row is about) and a score (how good it is).
#
# These cells need no files and no model, and run in a few seconds. Run them in order.

# %% [markdown] tags=["databricks"]
# **Before you start:** install the wheel of mig-spark on the cluster (*Libraries*, or `%pip install` with the wheel's
# path in a volume). This notebook writes nothing.

# %% [markdown] tags=["laptop"]
# **Before you start:** `pip install 'mig-spark[local,notebooks]'`, or `make setup` in a checkout.
#
# The next cell starts Spark in this process, with settings that suit a few thousand rows.

# %% tags=["laptop"]
from mig_spark.config import SparkConfig
from mig_spark.lakehouse.session import SHORT_RUN_CONF, SHORT_RUN_JVM, get_session

spark = get_session(SparkConfig(jvm_options=SHORT_RUN_JVM, conf=SHORT_RUN_CONF)).spark

# %% [markdown]
# ## A small pool
# Three hundred rows on twelve topics. As in real pools, a few topics have most of the rows: half of the rows are about
# Python alone, and they have the best scores.

# %%
import random

import pandas as pd

topics = ["python", "sql", "algebra", "geometry", "history", "cooking", "law", "medicine", "poetry", "travel",
          "music", "chess"]
draw = random.Random(7)
rows = [(f"python-{k:03d}", ["python"], round(draw.uniform(7, 9), 2)) for k in range(150)]
rows += [(f"mixed-{k:03d}", sorted(draw.sample(topics, draw.randint(1, 3))), round(draw.uniform(3, 8), 2))
         for k in range(150)]
pool = spark.createDataFrame(rows, "id string, labels array<string>, score double")
pd.DataFrame(rows, columns=["id", "labels", "score"]).groupby(lambda k: "python alone" if k < 150 else "mixed")[
    "score"
].agg(["count", "mean"]).round(2)

# %% [markdown]
# ## Select forty rows
# `edges` say which labels share information: a row about algebra also tells something about geometry. Here they are
# given by hand. With `model=` they come from the labels' embeddings, with `edges="file.jsonl"` from a file.

# %%
from mig_spark import select

selection = select(pool, 40, edges=[("algebra", "geometry", 0.92), ("python", "sql", 0.91)])
selection.ids[:8]

# %% [markdown]
# ## What each row added
# `rank` is the order in which rows were taken, `gain` what each one added when it was taken. Rows with several labels
# and a high score come first.

# %%
chosen = selection.to_arrow().to_pandas()
chosen[["rank", "id", "gain", "labels"]].head(8).round(3)

# %% [markdown]
# The first rows count for very much: each brings topics that no row before it had. From then on the gain falls slowly:
# what a topic has, it needs less of. (Its axis goes by powers of ten.) That is why Python, more than a third of all
# labels in the pool, does not get a third of the selection.

# %%
import matplotlib.pyplot as plt

fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
left.plot(chosen["rank"], chosen["gain"], marker=".")
left.set(xlabel="rank", ylabel="gain", title="What each row added", yscale="log")
in_pool = pd.Series([label for _, labels, _ in rows for label in labels]).value_counts()
in_selection = chosen["labels"].explode().value_counts()
shares = pd.DataFrame({"pool": in_pool / in_pool.sum(), "selection": in_selection / in_selection.sum()}).fillna(0)
shares.sort_values("pool").plot.barh(ax=right, color=["lightgray", "tab:blue"])
right.set(xlabel="share of all labels", title="Topics before and after")
plt.show()

# %% [markdown]
# ## The certificate
# The selection is the one that the sequential greedy algorithm makes, on any number of machines. The certificate shows
# it, and bounds what any other forty rows could have reached.

# %%
certificate = selection.certificate
share = selection.objective / certificate.upper_bound
print(f"objective {selection.objective:.3f}: at least {share:.1%} of the best that any {len(selection)} rows can have")
print("exact:", certificate.certified)

# %% [markdown]
# ## Against chance
# The same objective, over the same labels, for forty rows drawn at random, three times. (`include` takes rows whatever
# they add; forty of them use up the budget, so nothing else is taken.)

# %%
from mig_spark import SelectConfig, select_rows


def objective_of(ids):
    """The objective of these rows, in this order."""
    wanted = spark.createDataFrame([(i,) for i in ids], "id string")
    config = SelectConfig(budget=len(ids), upper_bound=False)
    return select_rows(pool, selection.graph, config, include=wanted).objective


at_random = [objective_of(draw.sample([row[0] for row in rows], 40)) for _ in range(3)]
print(f"selected {selection.objective:.3f}; at random", ", ".join(f"{value:.3f}" for value in at_random))

# %% [markdown]
# ## Without Spark
# A pandas or Arrow table is selected from in this process. The same rows give the same ids.

# %%
in_process = select(pd.DataFrame(rows, columns=["id", "labels", "score"]), 40, edges=[
    ("algebra", "geometry", 0.92), ("python", "sql", 0.91)])
in_process == selection

# %% [markdown]
# ## Where to go from here
# - `02_explore_a_selection`: from texts to a selection, with plots, reasons and a comparison.
# - `03_choose_parameters`: which threshold, which exponent, how many rows.
# - `04_your_own_tables`: tables of yours, on a cluster or a laptop.
# - `05_write_a_strategy`: another rule for which rows are taken.
