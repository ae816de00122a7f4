"""The label graph that a selection works on: labels and the propagation matrix P over them, from tables or edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.contracts import LABEL_EDGES, LABELS
from mig_spark.errors import InputError
from mig_spark.kernels.labels.propagation import build_propagation
from mig_spark.kernels.selection.objective import PropagationMatrix
from mig_spark.lakehouse.runtime import collect_arrow
from mig_spark.lakehouse.tables import Store


@dataclass(frozen=True)
class LabelGraph:
    """Labels and how information flows between them.

    Attributes:
        labels: the labels' texts in ascending order, each once; a label's id is its place in this list.
        propagation: the matrix P, one row and one column a label: P[l, m] is what one unit of information on label l
            adds to label m.
    """

    labels: list[str]
    propagation: PropagationMatrix

    @staticmethod
    def without_edges(labels: Sequence[str]) -> LabelGraph:
        """The graph in which every label keeps its information for itself.

        Args:
            labels: in any order; repeats count once.
        """
        known = sorted(set(labels))
        return LabelGraph(known, PropagationMatrix.identity(len(known)))


def graph_of(
    labels: list[str],
    edges: pa.Table,
    *,
    prop_weight: float,
    normalize: Literal["receiver", "sender"] = "receiver",
) -> LabelGraph:
    """The label graph of undirected edges, computed in this process by the kernel `build_propagation`.

    Args:
        labels: in ascending order, each once.
        edges: `src`, `dst` (labels), `weight`; each pair once, in either direction. Edges that name a label outside
            `labels`, edges from a label to itself, and weights of 0 or less are left out, as the stage `graph` does.
        prop_weight: what each weight is multiplied by; a label's weight for itself is 1.
        normalize: `receiver` divides each column of the weights by its sum, `sender` each row.
    """
    names = pa.array(labels, pa.string())
    i, j = (
        pc.fill_null(pc.index_in(edges[end].combine_chunks(), value_set=names), -1).to_numpy() for end in ("src", "dst")
    )
    weight = edges["weight"].to_numpy()
    used = (i >= 0) & (j >= 0) & (i != j) & (weight > 0)
    p = build_propagation(len(labels), i[used], j[used], weight[used], prop_weight=prop_weight, normalize=normalize)
    return LabelGraph(labels, p)


def load_graph(store: Store) -> LabelGraph:
    """The label graph that the stage `graph` has written to LABELS and LABEL_EDGES.

    Raises:
        InputError: the stage has not run, or the two tables do not belong together.
    """
    by_id = collect_arrow(store.read(LABELS).select("label_id", "label")).sort_by("label_id")
    labels: list[str] = by_id["label"].to_pylist()
    entries = collect_arrow(store.read(LABEL_EDGES).where("kind = 'propagation'").select("src", "dst", "weight"))
    if labels and not len(entries):
        raise InputError("the label graph has no propagation matrix: run the stage `graph` again")
    names = pa.array(labels, pa.string())
    rows, cols = (_label_ids(entries[end], names) for end in ("src", "dst"))
    weights = entries["weight"].to_numpy().astype(np.float64)
    return LabelGraph(labels, PropagationMatrix.from_triplets(len(labels), rows, cols, weights))


def _label_ids(labels: pa.ChunkedArray, known: pa.Array) -> npt.NDArray[np.int32]:
    found = pc.index_in(labels.combine_chunks(), value_set=known)
    if found.null_count:
        raise InputError("label_edges names a label that is not in labels: run the stage `graph` again")
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=np.int32)
