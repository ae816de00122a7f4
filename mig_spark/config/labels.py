"""The vocabulary and the label graph."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from mig_spark.config.base import DEFAULT_MODEL, Section

#: Cosine scales differ by model: 0.9 is what the paper used with E5-Mistral; short phrases under MiniLM that mean the
#: same lie lower (docs/parameters.md shows the pairs that each threshold joins).
MODEL_THRESHOLDS = {"all-MiniLM-L6-v2": 0.75}
PAPER_THRESHOLD = 0.9


class AssociationConfig(Section):
    """When two labels that rows carry together are one."""

    support: float = Field(1e-4, ge=0, le=1, description="least share of the rows that carry both")
    min_count: int = Field(20, ge=1, description="least number of rows that carry both")
    confidence: float = Field(0.99, gt=0, le=1, description="share of the rows of either one that carry the other too")


class InduceConfig(Section):
    """Labels for a pool that has none and no vocabulary either: `mig-spark induce`."""

    clusters: int = Field(100, ge=2, description="k of k-means")
    phrases: int = Field(3, ge=1, le=20, description="labels that a cluster gives to the vocabulary, at most")
    rows: int = Field(100_000, ge=2, description="at most this many different rows are embedded, drawn by content hash")
    min_rows: int = Field(3, ge=1, description="a phrase that fewer rows of the cluster contain names nothing")


class VocabularyConfig(Section):
    """From raw tags to labels, between `annotate` and `graph`; docs/vocabulary.md."""

    enabled: bool = Field(False, description="off: labels are the tags as they are")
    fixed: bool = Field(False, description="apply the table as it is and work nothing out")
    min_count: int = Field(5, ge=1, description="tags on fewer rows are dropped")
    min_share: float = Field(1e-6, ge=0, le=1, description="the same as a share of the rows; the greater one counts")
    language: str | list[str] | None = Field("en", description="whose lemmas are looked up; null: none")
    model: str = DEFAULT_MODEL
    merge_distance: float | None = Field(0.05, ge=0, lt=1, description="cosine distance of one meaning; null: off")
    association: AssociationConfig | None = AssociationConfig()
    induce: InduceConfig = InduceConfig()

    def languages(self) -> tuple[str, ...]:
        """The languages in order."""
        return (self.language,) if isinstance(self.language, str) else tuple(self.language or ())


class GraphConfig(Section):
    """The label graph and the propagation matrix; docs/label-graph.md."""

    edges: Literal["similarity", "cooccurrence", "both"] = Field(
        "similarity", description="what joins labels: like meanings, the same rows, or either"
    )
    threshold: float | None = Field(None, ge=-1, le=1, description="least cosine of an edge; default by the model")
    prop_weight: float = Field(1.0, ge=0, le=1e100, description="weight of similarity")
    cooccurrence_weight: float = Field(0.5, ge=0, le=1e100, description="weight of co-occurrence, where `edges` has it")
    cooccurrence_min_count: int = Field(5, ge=1, description="least number of rows that carry both labels")
    cooccurrence_p_value: float = Field(
        0.001, gt=0, le=1, description="chance of so strong an association among labels that have none; 1: no test"
    )
    cooccurrence_max_labels: int = Field(50, ge=2, description="pairs are counted among the first labels of a row")
    normalize: Literal["receiver", "sender"] = "receiver"
    embedding_model: str = DEFAULT_MODEL
    max_labels: int = Field(200_000, ge=1, description="more labels are not embedded: the run stops")
    edges_path: str | None = Field(None, description="label edges with src, dst, weight: then no model is loaded")
    engine: Literal["auto", "graphframes", "joins"] = Field(
        "auto", description="what computes on the graph: the same matrix by either; auto: what is there"
    )

    @model_validator(mode="after")
    def _edges_are_used(self) -> GraphConfig:
        weight = type(self).model_fields["cooccurrence_weight"].default
        if self.edges == "similarity" and self.cooccurrence_weight not in (0, weight):
            raise ValueError("cooccurrence_weight counts for nothing with edges: similarity; set edges: both")
        if self.edges != "similarity" and self.cooccurrence_weight == 0:
            raise ValueError(f"edges: {self.edges} needs a cooccurrence_weight above 0")
        if self.edges == "cooccurrence" and self.edges_path is not None:
            raise ValueError("edges: cooccurrence does not read edges_path; set edges: both, or leave one out")
        return self

    def resolved_threshold(self) -> float | None:
        """The threshold in force, see `edge_threshold`."""
        return edge_threshold(self.threshold, model=None if self.edges_path is not None else self.embedding_model)


def edge_threshold(given: float | None, *, model: str | None) -> float | None:
    """The least weight of an edge: the one rule for the pipeline, `select` and `sample`.

    Args:
        given: what the user asks for; it decides where it is not None.
        model: the embedding model that makes the edges; None where the user brings them.

    Returns:
        The threshold that suits the model; None where the user's own edges are taken as they are.
    """
    if given is not None or model is None:
        return given
    return MODEL_THRESHOLDS.get(model.rsplit("/", 1)[-1], PAPER_THRESHOLD)
