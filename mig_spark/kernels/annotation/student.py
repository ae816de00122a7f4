"""A student: a linear model on the vectors of rows that says what a dearer annotator, its teacher, said of a sample.

It is fitted by scikit-learn, at the driver; what it says of a row takes numpy alone, so executors need no more.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mig_spark.errors import DependencyError
from mig_spark.kernels.annotation.rank_correlation import rank_correlation

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

#: Change when a fit, or what a student says, does: students of another version are fitted anew.
VERSION = 1
#: flag: the row has no text, or no word that the embedding knows, so the student knows nothing of it
NO_VECTOR = "no_vector"
HINT = "install the student extra: pip install 'mig-spark[student]'"
#: A label with fewer rows to learn from is not learned.
LEAST_OF_A_LABEL = 3
# penalties that are tried for scores; the one with the least error on rows left out, one at a time, is taken
_PENALTIES = np.logspace(-2, 3, 11)
# inverse penalties that are tried for labels, and parts of the rows of which each is left out once
_INVERSE_PENALTIES = (10.0, 100.0)
_FOLDS = 3
# decimals of what a student says: the order in which a batch is summed must decide nothing
_DECIMALS = 6
# rows at a time: a row has a value for each label
_ROWS = 1024
# a threshold that no value reaches
_NEVER = 1e9


@dataclass(frozen=True)
class Student:
    """What was learned, as plain values that travel to executors.

    Attributes:
        targets: k labels; or the columns that it fills, of quality, complexity and score.
        weights: float32 (k, d); the value of a target is its row times the row's vector, and `bias`.
        bias: float32 (k,).
        rule: what becomes of values. Of labels: `threshold`, the least value of a label; `always`, whether a row gets
            its best label where none reaches that; `top`, labels of a row at most. Of scores, by target: `center` and
            `scale`, which values are multiplied by and added to, then `low` and `high`, the teacher's least and
            greatest, which nothing goes beyond.
    """

    targets: tuple[str, ...]
    weights: F32 = field(repr=False)
    bias: F32 = field(repr=False)
    rule: Mapping[str, Any]

    def digest(self) -> str:
        """A hash of all of it: equal ones say the same of every row."""
        told = json.dumps([self.targets, self.rule, self.weights.shape], sort_keys=True, ensure_ascii=False)
        parts = [told.encode(), self.weights.astype("<f4").tobytes(), self.bias.astype("<f4").tobytes()]
        return hashlib.sha256(b"\0".join(parts)).hexdigest()

    def values(self, vectors: F32) -> F64:
        """The value of each target, float64 (n, k), rounded.

        Args:
            vectors: float32 (n, d).
        """
        made = vectors.astype(np.float64) @ self.weights.astype(np.float64).T + self.bias
        return np.asarray(np.round(made, _DECIMALS), np.float64)


def check_fit_installed() -> None:
    """Check that scikit-learn is there, before a teacher is asked for anything.

    Raises:
        DependencyError: it is not.
    """
    from importlib.util import find_spec

    if find_spec("sklearn") is None:
        raise DependencyError(f"a student is fitted by scikit-learn, which is not installed on the driver: {HINT}")


def labels_of_rows(student: Student, vectors: pa.ListArray) -> list[list[str]]:
    """The labels of rows, best first, equal values in the order of `targets`; none for a row without a vector.

    Args:
        vectors: n lists of d floats; null where a row has none.
    """
    known, there = dense(vectors, student.weights.shape[1])
    labels: list[list[str]] = []
    for start in range(0, len(known), _ROWS):
        values = student.values(known[start : start + _ROWS])
        labels += [[student.targets[k] for k in row] for row in _chosen(values, **student.rule)]
    found = iter(labels)
    return [next(found) if here else [] for here in there]


def scores_of_rows(student: Student, vectors: pa.ListArray) -> dict[str, F64]:
    """The value of each target, float64 (n,); the teacher's mean for a row without a vector.

    Args:
        vectors: n lists of d floats; null where a row has none.
    """
    known, there = dense(vectors, student.weights.shape[1])
    # 0 is the mean, in the numbers that are learned
    values = np.zeros((len(there), len(student.targets)))
    values[there] = student.values(known)
    return {name: _in_range(values[:, k], student.rule[name]) for k, name in enumerate(student.targets)}


def flags_of(vectors: pa.ListArray) -> pa.ListArray:
    """For each of n vectors a list with the flag `NO_VECTOR` where it is null."""
    return pa.array([[NO_VECTOR] if null else [] for null in np.asarray(vectors.is_null())], pa.list_(pa.string()))


def dense(vectors: pa.ListArray, width: int) -> tuple[F32, npt.NDArray[np.bool_]]:
    """A column of vectors as an array.

    Args:
        vectors: n lists of `width` floats; null where a row has none.

    Returns:
        float32 (m, width), those that are there, in order; bool (n,), which they are.
    """
    there = ~np.asarray(vectors.is_null())
    flat = np.asarray(vectors.drop_null().flatten(), np.float32)
    return flat.reshape(-1, width), there


def _in_range(values: F64, rule: Mapping[str, float]) -> F64:
    return np.clip(rule["center"] + rule["scale"] * values, rule["low"], rule["high"])


def _chosen(values: F64, threshold: float, top: int, always: bool) -> list[list[int]]:
    """The numbers of the labels of each row, best first."""
    row, label = np.nonzero(values >= threshold)
    order = np.lexsort((label, -values[row, label], row))
    row, label = row[order], label[order]
    counts = np.bincount(row, minlength=len(values))
    found = [part[:top].tolist() for part in np.split(label, np.cumsum(counts)[:-1])] if len(values) else []
    if always and values.shape[1]:
        best = values.argmax(axis=1)
        found = [part or [int(best[k])] for k, part in enumerate(found)]
    return found


def fit_scores(vectors: F32, columns: Mapping[str, F64]) -> Student:
    """Learn columns of scores: ridge regression of each, its penalty by the error on rows left out.

    Args:
        vectors: float32 (n, d).
        columns: float64 (n,) each, finite.

    Raises:
        DependencyError: scikit-learn is not installed.
    """
    names = tuple(columns)
    given = np.column_stack([columns[name] for name in names]).astype(np.float64)
    center, spread = given.mean(axis=0), given.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    weights, bias = _ridge(vectors, (given - center) / scale)
    rule = {
        name: {"center": float(center[k]), "scale": float(scale[k]), "low": float(low), "high": float(high)}
        for k, (name, low, high) in enumerate(zip(names, given.min(axis=0), given.max(axis=0), strict=True))
    }
    return Student(names, weights, bias, rule)


def fit_labels(vectors: F32, labels: Sequence[Sequence[str]]) -> Student:
    """Learn labels: a logistic regression for each, on whether rows have it; and how high its value has to be.

    The penalty and the threshold, one for all labels, are those with the best micro F1 on values that each row gets
    from a model fitted on the other two thirds of the rows. Where every row has a label, every row gets its best one.

    Args:
        vectors: float32 (n, d).
        labels: of the n rows. Those of fewer than `LEAST_OF_A_LABEL` rows are not learned.

    Raises:
        DependencyError: scikit-learn is not installed.
    """
    counts = Counter(label for row in labels for label in set(row))
    targets = tuple(sorted(label for label, n in counts.items() if n >= LEAST_OF_A_LABEL))
    top = max((len(set(row)) for row in labels), default=1) or 1
    width = vectors.shape[1]
    if not targets:
        none = np.zeros((0, width), np.float32)
        return Student((), none, np.zeros(0, np.float32), {"threshold": 0.0, "top": top, "always": False})
    has = _indicators(labels, targets)
    fold = np.arange(len(vectors)) % _FOLDS
    in_all, always = sum(len(set(row)) for row in labels), all(labels)
    tried = []
    for inverse in _INVERSE_PENALTIES:
        left_out = np.empty(has.shape, np.float64)
        for k in range(_FOLDS):
            weights, bias = _logistic(vectors[fold != k], has[fold != k], inverse)
            left_out[fold == k] = Student(targets, weights, bias, {}).values(vectors[fold == k])
        tried.append((*_best_threshold(left_out, has, in_all, top, always=always), inverse))
    _, threshold, inverse = max(tried, key=lambda one: one[0])
    weights, bias = _logistic(vectors, has, inverse)
    return Student(targets, weights, bias, {"threshold": threshold, "top": top, "always": always})


def _indicators(labels: Sequence[Sequence[str]], targets: Sequence[str]) -> F64:
    """float64 (n, k): 1 where a row has a label."""
    at = {label: k for k, label in enumerate(targets)}
    has = np.zeros((len(labels), len(targets)), np.float64)
    for row, own in enumerate(labels):
        has[row, [at[label] for label in own if label in at]] = 1.0
    return has


def _best_threshold(values: F64, has: F64, in_all: int, top: int, *, always: bool) -> tuple[float, float]:
    """The best micro F1 and the threshold that has it, of equal ones the highest.

    Args:
        values: float64 (n, k), of rows that had no part in the fit.
        has: float64 (n, k), 1 where the teacher gave the label.
        in_all: labels that the teacher gave in all, those that are not learned included.
        top: labels of a row, at most.
        always: rows get their best label below the threshold too.
    """
    n, k = values.shape
    # a row can get its `top` best labels and no others
    order = np.lexsort((np.broadcast_to(np.arange(k), (n, k)), -values), axis=1)[:, :top]
    of_row = np.arange(n)[:, None]
    value, right = values[of_row, order], has[of_row, order]
    if always:
        value[:, 0] = np.inf
    down = np.argsort(-value.ravel(), kind="stable")
    value, right = value.ravel()[down], right.ravel()[down]
    f1 = 2 * np.cumsum(right) / (np.arange(1, len(down) + 1) + in_all)
    # a threshold takes all labels of its value
    last = np.append(value[:-1] != value[1:], True)
    at = int(np.argmax(np.where(last, f1, -1.0)))
    return float(f1[at]), float(value[at]) if np.isfinite(value[at]) else _NEVER


def _ridge(vectors: F32, wanted: F64) -> tuple[F32, F32]:
    """Weights (k, d) and biases (k,) of a ridge regression of k columns, with a penalty for each."""
    check_fit_installed()
    from sklearn.linear_model import RidgeCV

    model = RidgeCV(alphas=_PENALTIES, alpha_per_target=True).fit(vectors.astype(np.float64), wanted)
    return np.atleast_2d(model.coef_).astype(np.float32), np.atleast_1d(model.intercept_).astype(np.float32)


def _logistic(vectors: F32, has: F64, inverse: float) -> tuple[F32, F32]:
    """Weights (k, d) and biases (k,) of a logistic regression for each of k labels.

    Args:
        vectors: float32 (n, d).
        has: float64 (n, k), 0 or 1. A label that no row has, or all rows have, has no weights, and a bias that says so.
        inverse: inverse of the penalty.
    """
    check_fit_installed()
    from sklearn.linear_model import LogisticRegression

    weights = np.zeros((has.shape[1], vectors.shape[1]), np.float32)
    bias = np.where(has.any(axis=0), _NEVER, -_NEVER).astype(np.float32)
    wide = vectors.astype(np.float64)
    for k in np.flatnonzero(has.any(axis=0) & ~has.all(axis=0)):
        model = LogisticRegression(C=inverse, max_iter=1000).fit(wide, has[:, k])
        weights[k], bias[k] = model.coef_[0], model.intercept_[0]
    return weights, bias


@dataclass(frozen=True)
class Agreement:
    """How far a student says what its teacher said, on rows that had no part in the fit.

    Attributes:
        rows: those rows.
        value: what a config's least agreement is held against: the rank correlation of the score, or micro F1 of the
            labels; None where there is none, since the teacher (or the student) says the same of all rows.
        more: further measures by name; of labels `macro_f1` and, in `labels`, `f1` and the rows of each by the teacher
            and by the student.
    """

    rows: int
    value: float | None
    more: Mapping[str, Any]


def agreement_of_scores(said: Mapping[str, F64], meant: Mapping[str, F64]) -> Agreement:
    """Spearman's rank correlation of each column.

    Args:
        said: by the student, `score` among them, float64 (n,) each.
        meant: by the teacher.
    """
    found = {name: rank_correlation(said[name], meant[name]) for name in said}
    value = found.pop("score")
    return Agreement(len(said["score"]), value, {f"rank_correlation_{name}": rho for name, rho in found.items()})


def agreement_of_labels(said: Sequence[Sequence[str]], meant: Sequence[Sequence[str]]) -> Agreement:
    """Micro F1 (over all pairs of row and label), macro F1 (the mean over labels), F1 of each label.

    A label's F1 is 2 x rows where both give it / (rows where the student does + rows where the teacher does); labels
    that neither gives are none of them, those that the student never learned count 0.

    Args:
        said: labels by the student, of n rows.
        meant: by the teacher.

    >>> agreement_of_labels([["a"], ["a", "b"]], [["a"], ["c"]]).value
    0.4
    """
    mine = Counter(label for row in said for label in set(row))
    theirs = Counter(label for row in meant for label in set(row))
    both = Counter(label for row, other in zip(said, meant, strict=True) for label in set(row) & set(other))
    names = sorted({*mine, *theirs})
    f1 = {name: 2 * both[name] / (mine[name] + theirs[name]) for name in names}
    given = mine.total() + theirs.total()
    labels = {name: {"f1": round(f1[name], 4), "teacher": theirs[name], "student": mine[name]} for name in names}
    macro = sum(f1.values()) / len(f1) if f1 else None
    return Agreement(len(said), 2 * both.total() / given if given else None, {"macro_f1": macro, "labels": labels})
