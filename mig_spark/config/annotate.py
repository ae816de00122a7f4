"""Who labels and who scores."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, WrapValidator, model_validator

from mig_spark.config.base import Section, one_or_many
from mig_spark.config.kinds import OneOf
from mig_spark.plugins import SCORERS, TAGGERS

Control = Literal["source", "length", "tokens"]
ScoreColumn = Literal["quality", "complexity", "score", "given.quality", "given.complexity", "given.score", "given.ifd"]


class ScoreConfig(Section):
    """The score that selects, from what was annotated; the annotations themselves stay as they are."""

    columns: list[ScoreColumn] = Field(
        default=["score"],
        min_length=1,
        description="annotated columns that the score is made of; given.*: values that the pool brought",
    )
    combine: Literal["product", "sum", "weighted_product"] = Field(
        "product", description="how several columns become one; weighted_product: each to the power of its weight"
    )
    weights: dict[ScoreColumn, float] = Field(
        default_factory=dict, description="weights of columns in sum and weighted_product; 1 for those not named"
    )
    normalize: Literal["none", "rank", "z", "min-max"] = Field(
        "none", description="what becomes of each column first: its rank, its z-score, or its place from least to most"
    )
    per_source: bool = Field(False, description="normalise within each source and not over all rows")
    missing: float | None = Field(
        None, ge=0, description="what counts, once normalised, where a row has no value; null: such a row stops the run"
    )
    reliability: float = Field(
        1.0,
        gt=0,
        le=1,
        description="how far differences between scores are to be believed, such as the correlation of two scorers on "
        "the same rows: a score becomes mean + reliability x (score - mean); 1: it stays as it is",
    )
    shrink_to: Literal["source", "pool"] = Field(
        "source", description="with a reliability below 1, which mean: that of the row's source, or that of all rows"
    )
    control: Annotated[Control | Literal["none"] | list[Control], WrapValidator(one_or_many)] = Field(
        "none",
        description="rank the score, last of all, among rows that are alike in this: their source, the length of their "
        "answers, their tokens, or several of these; for scores that follow it",
    )
    spread: float | None = Field(
        1.5,
        gt=1,
        description="with control: the best row of a class counts at most so many times what the worst counts; null: "
        "without limit",
    )

    @model_validator(mode="after")
    def _weights_fit(self) -> ScoreConfig:
        if len(set(self.columns)) < len(self.columns):
            raise ValueError(f"columns name one twice: {', '.join(self.columns)}")
        if self.weights and self.combine == "product":
            raise ValueError("weights have no effect on a product; set combine: weighted_product or sum")
        strange = [name for name in self.weights if name not in self.columns]
        if strange:
            raise ValueError(f"weights for {', '.join(strange)}, which is not among columns")
        if any(weight < 0 or weight == float("inf") or weight != weight for weight in self.weights.values()):
            raise ValueError("weights must be numbers from 0 on, or a score could be negative")
        if self.per_source and self.normalize == "none":
            raise ValueError("per_source has no effect without normalize: set it to rank, z or min-max")
        if not self.controls and self.spread != type(self).model_fields["spread"].default:
            raise ValueError(
                "spread has no effect without control: say what the score is ranked within, or leave it out"
            )
        if self.reliability == 1 and self.shrink_to != type(self).model_fields["shrink_to"].default:
            raise ValueError("shrink_to has no effect without reliability: give one below 1, or leave it out")
        if self.reliability < 1 and self.controls:
            raise ValueError(
                "reliability and control cannot go together: control ranks the score last of all, and spread says how "
                "much a rank counts; leave one of them out"
            )
        if isinstance(self.control, list) and len(set(self.control)) < len(self.control):
            raise ValueError(f"control names one twice: {', '.join(self.control)}")
        return self

    @property
    def controls(self) -> tuple[Control, ...]:
        """What `control` names, in the order in which rows are sorted into classes."""
        named = [self.control] if isinstance(self.control, str) else self.control
        return tuple(control for control in get_args(Control) if control in named)

    @property
    def is_plain(self) -> bool:
        """Whether the score stays what the scorer said."""
        if self.controls or self.reliability < 1:
            return False
        alone = self.columns == ["score"] and self.normalize == "none" and self.missing is None
        return alone and self.weights.get("score", 1.0) == 1.0


class AnnotateConfig(Section):
    """Who labels and who scores."""

    # a mapping is made a model when a config is built, so that importing the config imports no tagger
    tagger: Annotated[Any, OneOf(TAGGERS)] = Field(
        {"kind": "embedding"}, validate_default=True, description="who gives a row labels; kind says which tagger"
    )
    scorer: Annotated[Any, OneOf(SCORERS)] = Field(
        {"kind": "heuristic"},
        validate_default=True,
        description="who gives a row quality, complexity and score; kind says which scorer",
    )
    score: ScoreConfig = Field(ScoreConfig(), description="the score that selects, made of what was annotated")
    allow_degenerate: bool = Field(
        False,
        description="go on where (nearly) all scores are equal or more than half of the rows have no label of the "
        "tagger",
    )
    tokenizer: str | None = Field(
        "auto",
        description="what counts the column `tokens` of the annotated pool: a tokenizer.json, or a folder with one, "
        "whose chat template is applied where it has one; auto: the embedding model's, where quotas, cost, strategy "
        "or score.control name `tokens`; null: nothing, and `tokens` is a column of your own records",
    )
    chunk_rows: int = Field(
        20_000,
        ge=1,
        description="rows that are annotated and committed at a time, with models and endpoints",
    )
    max_attempts: int = Field(3, ge=1, description="runs that try a row without an answer before it is rejected")
    max_requests: int | None = Field(
        None, ge=1, description="requests to endpoints that one run may make; null: no limit"
    )
    max_tokens: int | None = Field(
        None, ge=1, description="tokens, in and out, that one run may use at endpoints; null: no limit"
    )
    spill_path: str | None = Field(
        None,
        description="folder, shared by all executors, that keeps paid answers until they are committed; null: a folder "
        "under output.path",
    )

    @model_validator(mode="after")
    def _tokens_are_counted(self) -> AnnotateConfig:
        if "tokens" in self.score.controls and self.tokenizer is None:
            raise ValueError(
                "score.control: tokens goes by tokens that are counted here, and tokenizer: null counts none; name a "
                "tokenizer, or leave it at auto"
            )
        return self
