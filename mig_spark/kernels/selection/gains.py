"""What a row would add to the state, and adding it."""

from __future__ import annotations

from mig_spark.kernels.compiled import njit
from mig_spark.kernels.selection.objective import exact_gain, height, label_sum, phi_prime, phi_rise, rise_from, spread


@njit(cache=True, counted=False)
def row_gain(label_ids, lo, hi, s, view, scratch):
    """The gain of a row with label_ids[lo:hi] and score s."""
    if view.exact:
        return exact_gain(label_ids, lo, hi, s, view.indptr, view.indices, view.weights, view.phi, view.a, view.b,
                          view.w, view.x, view.g, scratch.d, scratch.touched, scratch.high)  # fmt: skip
    return s * label_sum(label_ids, lo, hi, view.h)


@njit(cache=True, counted=False)
def take_row(label_ids, lo, hi, s, view, scratch):
    """Add a row's information to x, and bring g and h along (h is not used for the exact gain). Returns the rise of the
    objective."""
    # named once: in a loop, each look into a named tuple counts references
    indptr, indices, weights, column_ptr, column_rows = (
        view.indptr, view.indices, view.weights, view.column_ptr, view.column_rows,
    )  # fmt: skip
    x, g, h, phi, a, b, w = view.x, view.g, view.h, view.phi, view.a, view.b, view.w
    seen, touched, before, dirty, high = scratch.seen, scratch.touched, scratch.before, scratch.dirty, scratch.high
    n = 0
    for k in range(lo, hi):
        row = label_ids[k]
        for e in range(indptr[row], indptr[row + 1]):
            m = indices[e]
            if seen[m] & 1 == 0:
                seen[m] |= 1
                touched[n] = m
                before[m] = x[m]
                n += 1
            x[m] += weights[e] * s
    rise = 0.0
    changed = 0
    for t in range(n):
        m = touched[t]
        seen[m] &= 2
        old = before[m]
        if len(high) > 0:
            rise += rise_from(phi, a[m], b[m], w[m], old, x[m] - old, high[m])
            high[m] = height(phi, a[m], b[m], x[m])
        else:
            rise += phi_rise(phi, a[m], b[m], w[m], old, x[m] - old)
        value = phi_prime(phi, a[m], b[m], w[m], x[m])
        if value < g[m]:
            g[m] = value
            if view.exact:
                continue
            for e in range(column_ptr[m], column_ptr[m + 1]):
                r = column_rows[e]
                if seen[r] & 2 == 0:
                    seen[r] |= 2
                    dirty[changed] = r
                    changed += 1
    for t in range(changed):
        r = dirty[t]
        seen[r] = 0
        h[r] = spread(indptr, indices, weights, g, r)
    return rise


@njit(cache=True, counted=False)
def add_up(total, lost, more):
    """Neumaier's compensated sum: a million small rises on a large objective. The sum is total + lost."""
    new = total + more
    lost += (total - new) + more if abs(total) >= abs(more) else (more - new) + total
    return new, lost
