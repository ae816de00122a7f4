"""The section `select` as a selection from a run's own tables goes by it."""

from __future__ import annotations

from mig_spark.config import Config, QuotaConfig, QuotaLimit, SelectConfig
from mig_spark.lakehouse.tables import Store
from mig_spark.selection.label_parameters import located

#: The column of ANNOTATED with a row's group of near duplicates.
GROUP = "near_group"


def select_settings(store: Store, config: Config) -> SelectConfig:
    """The config's `select`, with the place of the run's own label parameters, and with
    `screen.near_duplicates.max_per_group` as quotas: groups are classes, rows that are in none have no limit.

    An extended selection may have more rows of a group than that from before, when a new row joins two groups.
    """
    select, most = located(store, config), config.screen.max_per_group
    if most is None:
        return select
    limit = QuotaConfig(column=GROUP, each=QuotaLimit(max=most), missing="unlimited", first_may_exceed=True)
    return select.model_copy(update={"quotas": limit})
