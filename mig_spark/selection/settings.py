"""The section `select` as a selection from a run's own tables goes by it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mig_spark.config import AUTO, Config, QuotaConfig, QuotaLimit, SelectConfig, build_part
from mig_spark.errors import InputError
from mig_spark.lakehouse.tables import Store
from mig_spark.selection.from_pool import with_b, with_norm, with_scale
from mig_spark.selection.label_parameters import located

#: Keys of `select` that every strategy keeps to.
_ALWAYS = frozenset({"budget", "include", "exclude"})
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
    return select.model_copy(update={"quotas": near_groups(QuotaLimit(max=most))})


def near_groups(limit: QuotaLimit | None) -> QuotaConfig:
    """The quotas that groups of near duplicates stand for."""
    return QuotaConfig(column=GROUP, each=limit, missing="unlimited", first_may_exceed=True)


def settled(select: SelectConfig, certificate: Mapping[str, Any] | None) -> SelectConfig:
    """The section with the numbers that `norm: auto`, `phi.b: auto` and `target` stood for in a selection, for whatever
    looks at that selection.

    Args:
        select: the section `select`.
        certificate: of that selection, from the run's record; None where there is none.

    Raises:
        InputError: they are not on record there.
    """
    record = certificate or {}
    if select.norm == AUTO:
        select = with_norm(select, float(_on_record(record, "norm", "norm is auto", "give the number")["gamma"]))
    if select.phi.b == AUTO:
        select = with_b(select, float(_on_record(record, "balance", "phi.b is auto", "give the number")["b"]))
    if select.target is not None and select.target.scale is None:
        told = _on_record(record, "target", "target is given", "leave the target out")
        select = with_scale(select, told["scale"])
    return select


def _on_record(record: Mapping[str, Any], name: str, what: str, instead: str) -> Mapping[str, Any]:
    found = record.get(name)
    if not isinstance(found, Mapping):
        raise InputError(
            f"select.{what}, and no selection on record says which number that is: run the stage `select` with this "
            f"config first, or {instead}"
        )
    return found


def settled_config(config: Config, certificate: Mapping[str, Any] | None) -> Config:
    """The same for a whole config.

    Raises:
        InputError: as `settled`.
    """
    select = settled(config.select, certificate)
    return config if select is config.select else config.model_copy(update={"select": select})


def by_strategy(
    select: SelectConfig, asked: str | Mapping[str, Any], *, where: str
) -> tuple[SelectConfig, list[str]]:  # fmt: skip
    """A section `select` with another strategy, and with those of its other values that this one goes by.

    Args:
        select: the section.
        asked: the strategy: its name (with the options that the section gives it, where it has the same one), or its
            options with the key `kind`.
        where: what asks for it, for messages.

    Returns:
        The section, and the keys that are set in `select` and left out, in order.

    Raises:
        ConfigError: there is no such strategy, or it cannot have such options or the section's values.
    """
    strategy = select.strategy
    if not (isinstance(asked, str) and asked == strategy.kind):
        plain = asked if isinstance(asked, str) else dict(asked)
        strategy = build_part(SelectConfig, {"strategy": plain, "budget": 0}, where=where).strategy
    usual = SelectConfig()
    given = {key for key in SelectConfig.model_fields if key != "strategy"}
    given = {key for key in given if getattr(select, key) != getattr(usual, key)}
    kept = given & (_ALWAYS | strategy.goes_by)
    if strategy.kind == "mig" and not select.tries_selections:
        kept -= {"seed"}
    values = {"strategy": strategy, **{key: getattr(select, key) for key in kept}}
    section = build_part(SelectConfig, values, where=where)
    return section, [key for key in SelectConfig.model_fields if key in given - kept]
