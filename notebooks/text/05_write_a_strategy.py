# %% [markdown]
# # Write a strategy
# A strategy says which rows are taken and in what order. Besides `mig` there are others to compare with (random, top
# scores, k-center and more), and you can write your own: one class, which then works in `select`, in a config, on the
# command line, on a laptop and on a cluster.

# %% [markdown] tags=["databricks"]
# **Before you start:** install the wheel of mig-spark on the cluster. This notebook writes nothing.

# %% [markdown] tags=["laptop"]
# **Before you start:** `pip install 'mig-spark[local,notebooks]'`, or `make setup` in a checkout. This notebook writes
# nothing.

# %% tags=["laptop"]
from mig_spark.config import SparkConfig
from mig_spark.lakehouse.session import SHORT_RUN_CONF, SHORT_RUN_JVM, get_session

# settings that suit a few thousand rows
spark = get_session(SparkConfig(jvm_options=SHORT_RUN_JVM, conf=SHORT_RUN_CONF)).spark

# %% [markdown]
# ## A pool to try it on
# A thousand rows on ten topics, some of them much more frequent than others.

# %%
import random

import pandas as pd

topics = ["python", "sql", "algebra", "history", "cooking", "law", "medicine", "poetry", "travel", "chess"]
draw = random.Random(5)
weights = [1.6**-k for k in range(len(topics))]
pool = pd.DataFrame(
    [
        (f"row-{k:04d}", sorted(set(draw.choices(topics, weights, k=draw.randint(1, 3)))), round(draw.uniform(1, 9), 2))
        for k in range(1000)
    ],
    columns=["id", "labels", "score"],
)
pool.head(3)

# %% [markdown]
# ## The rule
# *Take turns*: each label in turn gives its best row that has not been taken yet, the rarest label first. It is simple,
# and it makes sure that no label goes without.
#
# A strategy is a class with
# - `kind`: its name in a config,
# - options as fields, each with a default and a description; what is given for them is checked,
# - `goes_by`: which other keys of `select` it keeps to. `budget`, `include` and `exclude` always hold,
# - `select`: from rows to ids, best first.
#
# `rows.table` is an Arrow table where the rows are in this process, `rows.df` a Spark DataFrame where they are not:
# `context.spark` says which. Both must give the same ids, so ties go by id, not by the order in which rows happen to
# come. This strategy brings each label's best rows to the driver, as many as the budget at most.

# %%
from typing import ClassVar, Literal

from pydantic import Field

from mig_spark.selection.strategy import Context, Ranked, Strategy


class TakeTurns(Strategy):
    """Each label in turn gives its best row; the rarest label first."""

    kind: Literal["take_turns"] = "take_turns"
    at_least: float = Field(0.0, ge=0, description="rows with a lower score are not taken")

    goes_by: ClassVar[frozenset[str]] = frozenset()

    def select(self, rows, budget, context: Context) -> Ranked:
        """Ids, best first."""
        best = self._best_here(rows.table, budget) if context.spark is None else self._best_in_spark(rows.df, budget)
        queues = [list(ids) for _, _, ids in sorted(best)]  # (rows of the label, label, its best ids)
        taken = dict.fromkeys(())
        while any(queues) and (budget is None or len(taken) < budget):
            for queue in queues:
                while queue and queue[0] in taken:
                    queue.pop(0)
                if queue and (budget is None or len(taken) < budget):
                    taken[queue.pop(0)] = None
        return context.after_first(list(taken))

    def _best_here(self, table, budget):
        rows = table.select(["id", "labels", "score"]).to_pandas().explode("labels")
        rows = rows[rows["score"] >= self.at_least].sort_values(["score", "id"], ascending=[False, True])
        return [(len(own), label, own["id"].head(budget or len(own))) for label, own in rows.groupby("labels")]

    def _best_in_spark(self, df, budget):
        from pyspark.sql import Window
        from pyspark.sql import functions as sf

        rows = df.where(df["score"] >= self.at_least).select("id", "score", sf.explode("labels").alias("label"))
        by_label = Window.partitionBy("label")
        rows = rows.withColumn("rows", sf.count("*").over(by_label))
        rows = rows.withColumn("place", sf.row_number().over(by_label.orderBy(sf.desc("score"), "id")))
        if budget is not None:
            rows = rows.where(rows["place"] <= budget)
        found = rows.select("label", "rows", "place", "id").toPandas().sort_values(["label", "place"])
        return [(int(own["rows"].iloc[0]), label, own["id"]) for label, own in found.groupby("label")]


# %% [markdown]
# ## Try it
# `select` takes the strategy itself. First without Spark.

# %%
from mig_spark import select

turns = select(pool, 60, strategy=TakeTurns(at_least=2))
turns.to_arrow().to_pandas().head(5)[["rank", "id", "labels"]]

# %% [markdown]
# The same rows as a DataFrame, in many partitions and in another order: the ids have to be the same. This is the check
# that finds most mistakes in a strategy.

# %%
shuffled = spark.createDataFrame(pool.sample(frac=1, random_state=1)).repartition(7)
select(shuffled, 60, strategy=TakeTurns(at_least=2)) == turns

# %% [markdown]
# What a user gets wrong ends in one line.

# %%
from mig_spark import MigError

try:
    select(pool, 60, strategy=TakeTurns(), gain="exact")
except MigError as error:
    print(error)

# %% [markdown]
# ## Against the others
# Three questions to each selection: how good are the rows, how evenly are the labels covered, and how much information
# do they carry by MIG's own measure? The last one is what `mig` is made for, so it wins there.

# %%
from mig_spark import SelectConfig, select_rows


def measures(selection):
    """Mean score, effective number of labels (1 if all rows had one and the same label), objective."""
    rows = pool.set_index("id").loc[selection.ids]
    shares = rows["labels"].explode().value_counts(normalize=True)
    objective = select(pool, len(selection), include=selection.ids, upper_bound=False).objective
    return {"mean score": rows["score"].mean(), "effective labels": (shares**2).sum() ** -1, "objective": objective}


found = {"take_turns": turns} | {name: select(pool, 60, strategy=name) for name in ("mig", "random", "top")}
table = pd.DataFrame({name: measures(selection) for name, selection in found.items()}).T
table.round(2)

# %% [markdown]
# What each selection is about: the shares of the labels of its rows.

# %%
import matplotlib.pyplot as plt

shares = pd.DataFrame(
    {name: pool.set_index("id").loc[s.ids, "labels"].explode().value_counts(normalize=True) for name, s in found.items()}
).reindex(topics).fillna(0)
fig, axes = plt.subplots(figsize=(9, 3.4), layout="constrained")
shares.plot.bar(ax=axes, width=0.8)
axes.set(ylabel="share of all labels", title="What each strategy is about", xlabel="")
axes.tick_params(axis="x", rotation=30)
plt.show()

# %% [markdown]
# ## Into a package
# Put the class into a module of a package of yours and announce it:
#
# ```toml
# # pyproject.toml
# [project.entry-points."mig_spark.strategies"]
# take_turns = "my_package.take_turns:TakeTurns"
# ```
#
# After `pip install` on the driver a config may say `select: {strategy: {kind: take_turns, at_least: 2}}`, and
# `mig-spark select --help` lists it. docs/strategies.md has all that a strategy has to keep to: columns and lists of its
# own, vectors of rows, quotas, long selections that go on where they were.
