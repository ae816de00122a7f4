"""What the greedy selection begins with: phi, the concave function of each label by which a further row on a covered
label is worth less, and the information that each label has before the first row."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from mig_spark.config import SelectConfig
from mig_spark.kernels.selection.blocks import rows_of_table
from mig_spark.kernels.selection.objective import Phi
from mig_spark.kernels.selection.rescore import rescore
from mig_spark.kernels.selection.state import State
from mig_spark.kernels.selection.target import aimed
from mig_spark.labels.label_graph import LabelGraph


def make_phi(select: SelectConfig, graph: LabelGraph, parameters: dict[str, dict[str, float]] | None = None) -> Phi:
    """The concave function phi of each label, by the keys `phi`, `label_parameters`, `propagation` and `target` of
    `select`.

    `propagation: invariant` takes c phi(x / c), c being P[l, l], the share of its own information that a label keeps.
    With A, P before its columns are divided, d the sums of these and m what the rows put on labels, that is
    E = sum_l phi((m A)_l) / d_l: labels that say the same have one phi's worth between them, however many they are.
    `target` takes the same form of what there is then, with the c that were chosen for it (`kernels.selection.target`).

    Args:
        select: the section of the config; its `phi` is that of labels without parameters of their own.
        graph: the labels in order, and P with columns that sum to 1.
        parameters: by label, any of `weight`, `a`, `b`, `alpha`.
    """
    n, config = len(graph.labels), select.phi
    assert not isinstance(config.b, str), "auto stands for a number, see selection.settings.settled"
    phi = Phi.power(n, a=config.a, b=config.b) if config.kind == "pow" else Phi.exponential(n, alpha=config.alpha)
    for k, label in enumerate(graph.labels):
        own = (parameters or {}).get(label, {})
        phi.weight[k] = own.get("weight", phi.weight[k])
        phi.a[k] = own.get("a" if config.kind == "pow" else "alpha", phi.a[k])
        phi.b[k] = own.get("b", phi.b[k])
    if select.propagation == "invariant":
        phi = phi.scaled(graph.propagation.diagonal())
    if select.target is None:
        return phi
    scale = select.target.scale
    assert scale is not None, "a target stands for one c a label, see selection.settings.settled"
    return aimed(phi, np.array([scale.get(label, 0.0) for label in graph.labels]))


def start_state(
    config: SelectConfig, graph: LabelGraph, parameters: dict[str, dict[str, float]] | None, given: pa.Table | None
) -> State:
    """The state before the first row of a selection is taken: nothing selected, but for the information of the rows
    that `select.given` names.

    Args:
        config: the section `select`, with numbers for `norm`, `phi.b` and the target.
        graph: the label graph.
        parameters: phi of single labels.
        given: those rows, with `id`, `labels` and `score`, in order of id; None: there are none.
    """
    state = State.start(graph.propagation, make_phi(config, graph, parameters), exact=config.gain == "exact")
    if given is not None:
        labels, columns = pa.array(graph.labels, pa.string()), ["id", "labels", "score"]
        rescore(state, rows_of_table(given.select(columns), labels, norm=config.label_exponent))
    return state
