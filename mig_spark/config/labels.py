"""The vocabulary and the label graph."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, WrapValidator, model_validator

from mig_spark.config.base import AUTO, DEFAULT_MODEL, Section, number_or_auto

#: Cosine scales differ by model: 0.9 is what the paper used with E5-Mistral; short phrases under MiniLM that mean the
#: same lie lower (docs/parameters.md shows the pairs that each threshold joins).
MODEL_THRESHOLDS = {"all-MiniLM-L6-v2": 0.75}
PAPER_THRESHOLD = 0.9


class AssociationConfig(Section):
    """When two labels are merged because nearly every row that carries one of them carries the other too."""

    support: float = Field(1e-4, ge=0, le=1, description="at least this share of the pool's rows carry both labels")
    min_count: int = Field(20, ge=1, description="at least this many rows carry both labels")
    confidence: float = Field(
        0.99, gt=0, le=1, description="at least this share of the rows with either label carry the other too"
    )


class InduceConfig(Section):
    """Labels for a pool that has none and no vocabulary either: `mig-spark induce`."""

    clusters: int = Field(100, ge=2, description="number of clusters of rows: the k of k-means")
    phrases: int = Field(3, ge=1, le=20, description="labels that one cluster gives to the vocabulary, at most")
    rows: int = Field(
        100_000, ge=2, description="rows of different content that are embedded, at most; drawn by content hash"
    )
    min_rows: int = Field(
        3, ge=1, description="a phrase becomes a label only if at least this many rows of the cluster contain it"
    )


class VocabularyConfig(Section):
    """From raw tags to labels, between `annotate` and `graph`; docs/vocabulary.md."""

    enabled: bool = Field(
        False, description="whether tags are cleaned into labels; if not, labels are the tags as they are"
    )
    fixed: bool = Field(False, description="apply the table `vocabulary` as it is, and change nothing in it")
    min_count: int = Field(5, ge=1, description="labels on fewer rows than this are dropped")
    min_share: float = Field(
        1e-6, ge=0, le=1, description="the same as a share of the rows; the stricter of the two counts"
    )
    language: str | list[str] | None = Field(
        "en", description="code of the language whose base forms (lemmas) are looked up, or a list of codes; null: none"
    )
    model: str = Field(DEFAULT_MODEL, description="sentence-transformers model that embeds labels, and rows for induce")
    merge_distance: float | None = Field(
        0.05,
        ge=0,
        lt=1,
        description="labels whose embeddings are at most this cosine distance apart are merged; null: none are",
    )
    association: AssociationConfig | None = Field(
        AssociationConfig(), description="when labels that always occur together are merged; null: never"
    )
    induce: InduceConfig = Field(InduceConfig(), description="how `mig-spark induce` finds labels")

    def languages(self) -> tuple[str, ...]:
        """The languages in order."""
        return (self.language,) if isinstance(self.language, str) else tuple(self.language or ())


class GraphConfig(Section):
    """The label graph and the propagation matrix; docs/label-graph.md."""

    edges: Literal["similarity", "cooccurrence", "both"] = Field(
        "similarity",
        description="what joins labels: similar meanings, occurrence on the same rows (no model is loaded), or both",
    )
    threshold: Annotated[
        Annotated[float, Field(ge=-1, le=1)] | Literal["auto"] | None, WrapValidator(number_or_auto)
    ] = Field(
        None,
        description="least cosine of a similarity edge, -1 to 1; null: what suits the model (MiniLM 0.75, else 0.9); "
        "auto: chosen from the labels in use (docs/parameters.md)",
    )
    prop_weight: float = Field(
        1.0, ge=0, le=1e100, description="how much information flows along a similarity edge: its cosine times this"
    )
    cooccurrence_weight: float = Field(
        0.5, ge=0, le=1e100, description="the same for co-occurrence: its normalised PMI times this"
    )
    cooccurrence_min_count: int = Field(5, ge=1, description="pairs of labels on fewer rows than this are no edge")
    cooccurrence_p_value: float = Field(
        0.001,
        gt=0,
        le=1,
        description="pairs are an edge only where the log-likelihood ratio test gives at most this p; 1: no test",
    )
    cooccurrence_max_labels: int = Field(
        50, ge=2, description="pairs are counted among the first so many labels of a row"
    )
    normalize: Literal["receiver", "sender"] = Field(
        "receiver", description="what P's weights are divided by: receiver as the published code, sender as the paper"
    )
    embedding_model: str = Field(DEFAULT_MODEL, description="sentence-transformers model that embeds the labels")
    max_labels: int = Field(
        200_000, ge=1, description="with more labels than this none are embedded: the run stops and says what to do"
    )
    edges_path: str | None = Field(
        None, description="your own edges (src, dst, weight) in place of similarity; no model is loaded"
    )
    engine: Literal["auto", "graphframes", "kernel"] = Field(
        "auto",
        description="what computes P, components and communities, with the same result: GraphFrames, or compiled "
        "kernels at the driver; auto: GraphFrames where it is there",
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
        if self.threshold == AUTO and self.edges_path is not None:
            raise ValueError(
                "threshold: auto goes by embeddings of the labels, and edges_path brings edges without them; give a "
                "number, or null to take your edges as they are"
            )
        if self.threshold == AUTO and self.edges == "cooccurrence":
            raise ValueError("threshold: auto has nothing to choose with edges: cooccurrence, which embeds no label")
        return self

    def resolved_threshold(self) -> float | None:
        """The threshold in force, see `edge_threshold`; with `auto`, the one where nothing can be told from the labels.
        Which one `auto` has chosen is in the counts of the stage `graph`."""
        given = None if isinstance(self.threshold, str) else self.threshold
        return edge_threshold(given, model=None if self.edges_path is not None else self.embedding_model)


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
