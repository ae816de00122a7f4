# %% [markdown]
# # Select from a DataFrame
# mig-spark takes, one by one, the row that adds the most information. All it needs is an id, labels and a score a row.
# These cells run anywhere: on a laptop a local session is started, on a managed platform its session is used.

# %%
from mig_spark import select
from mig_spark.lakehouse.session import get_session
from mig_spark.config import SparkConfig

spark = get_session(SparkConfig()).spark

# %% [markdown]
# ## A small pool
# Sixty rows on ten topics. Half of the rows are about Python, with high scores: a pool as pools are, lopsided.

# %%
import random

topics = ["python", "sql", "algebra", "geometry", "history", "cooking", "law", "medicine", "poetry", "travel"]
draw = random.Random(7)
rows = [(f"py-{k:02d}", ["python"], round(draw.uniform(7, 9), 2)) for k in range(30)]
rows += [
    (f"mixed-{k:02d}", sorted(draw.sample(topics, draw.randint(1, 3))), round(draw.uniform(3, 8), 2)) for k in range(30)
]
pool = spark.createDataFrame(rows, "id string, labels array<string>, score double")

# %% [markdown]
# ## Labels that are near each other
# The label graph says which labels share information: here as triples. With `model=` it comes from a model's embeddings,
# with `edges="file.jsonl"` from a file.

# %%
edges = [("algebra", "geometry", 0.92), ("python", "sql", 0.91)]
selection = select(pool, 12, edges=edges)
selection.ids

# %% [markdown]
# ## What each row added
# `gain` falls: the first rows cover new topics, later ones add less and less. Python, half of the pool, gets its share
# and no more.

# %%
chosen = selection.to_arrow().to_pandas()
chosen[["rank", "id", "gain", "labels"]]

# %% [markdown]
# ## The certificate
# How many rounds and evaluations it took, by how much each pick led over what was left (`margin`), and a bound on the
# best objective that any twelve rows could have.

# %%
certificate = selection.certificate
share = selection.objective / certificate.upper_bound
print(f"objective {selection.objective:.3f}, at least {share:.1%} of the best possible; {certificate.engine} engine")

# %% [markdown]
# ## Against chance
# The same objective, over the same label graph, for twelve rows drawn at random, three times. `include` takes rows
# whatever they add; twelve of them use up the budget.

# %%
from mig_spark import SelectConfig, select_rows


def objective_of(ids):
    wanted = spark.createDataFrame([(i,) for i in ids], "id string")
    config = SelectConfig(budget=len(ids), upper_bound=False)
    return select_rows(pool, selection.graph, config, include=wanted).objective


at_random = [objective_of(draw.sample([r[0] for r in rows], 12)) for _ in range(3)]
print(f"selected {selection.objective:.3f}, at random {max(at_random):.3f} at best")
