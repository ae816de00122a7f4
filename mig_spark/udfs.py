"""The one place where kernels become functions over partitions.

Each factory closes over plain values only and returns a function for `DataFrame.mapInArrow` or `mapInPandas`, so that
nothing of the driver travels to the executors.
"""

from __future__ import annotations
