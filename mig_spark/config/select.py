"""What to select and how."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator, model_validator

from mig_spark.config.base import AUTO, Section, number_or_auto
from mig_spark.config.kinds import OneOf
from mig_spark.config.target import TargetConfig
from mig_spark.errors import ConfigError
from mig_spark.plugins import STRATEGIES

#: The published code's exponent of phi, and the share of the mean score that `auto` keeps.
PUBLISHED_B, SCORE_SHARE = 0.8, 0.95

#: Keys of `select` that say which rows of the whole pool may be taken.
KEYS_OF_LIMITS = ("quotas", "cost", "given", "include", "exclude")
#: Keys of `select` that say how the work is shared out, and not which rows are taken.
KEYS_OF_WORK = ("engine", "candidates", "block_rows", "max_rounds")
#: The keys of `select.phi` by kind.
PHI_KEYS = {"pow": ("a", "b"), "exp": ("alpha",)}


class PhiConfig(Section):
    """The concave function that makes the next row on a covered label worth less: `pow` is phi(x) = (x + a)^b, `exp`
    has phi'(x) = alpha exp(-alpha x)."""

    kind: Literal["pow", "exp"] = Field("pow", description="pow: (x + a)^b; exp: 1 - exp(-alpha x)")
    a: float = Field(1e-6, ge=1e-50, le=1e50, description="of pow: keeps the slope at x = 0 finite")
    b: Annotated[Annotated[float, Field(ge=1e-9, lt=1)] | Literal["auto"], WrapValidator(number_or_auto)] = Field(
        PUBLISHED_B,
        description="of pow: the exponent, from 1e-09 to below 1; the lower, the sooner a label is saturated; auto: "
        "chosen from the pool by score_share (docs/parameters.md)",
    )
    score_share: float = Field(
        SCORE_SHARE,
        gt=0,
        le=1,
        description="of b: auto: share of the mean score at b 0.99 that the selection is to keep; the rest goes to "
        "diversity",
    )
    alpha: float = Field(1.0, ge=1e-50, le=1e50, description="of exp: the rate; the higher, the sooner it is saturated")

    @model_validator(mode="after")
    def _auto_is_of_pow(self) -> PhiConfig:
        if self.b == AUTO and self.kind != "pow":
            raise ValueError(f"b: auto chooses the exponent of kind: pow, and kind: {self.kind} has none; leave b out")
        if self.b != AUTO and self.score_share != SCORE_SHARE:
            raise ValueError("score_share is what b: auto goes by; leave it out, or set b: auto")
        other = "exp" if self.kind == "pow" else "pow"
        for key in PHI_KEYS[other]:
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} is of kind: {other}, and kind is {self.kind}: set that kind, or leave it out")
        return self


def power_or_auto(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """One message for `norm`, where pydantic has one for each of its types; 0 is false, and 1 is true.

    Raises:
        ValueError: the value is none of them.
    """
    try:
        found = handler(value)
    except ValidationError:
        raise ValueError("give true, false, a number from 0 to 1, or the word auto") from None
    return bool(found) if found in (0, 1) else found


#: Why the two cannot go together.
INVARIANT_NEEDS_RECEIVER = (
    "select.propagation: invariant needs graph.normalize: receiver, whose matrix says how much of its information a "
    "label keeps for itself; with sender it does not: set graph.normalize: receiver, or leave propagation out"
)

#: The quota class of rows without a value, where those are not limited.
NO_VALUE = ""


class QuotaLimit(Section):
    """Least and most of one value of the quota column: in rows or, for a most, in units of the cost (quotas.unit), or
    as shares of the budget."""

    min: int = Field(0, ge=0, description="rows that are taken at least; the run stops where there are fewer")
    max: int | float | None = Field(
        None,
        ge=0,
        description="rows, or units of the cost, that are taken at most; null: no limit",
    )
    min_share: float | None = Field(
        None, ge=0, le=1, description="min as a share of the budget, rounded up to a row; null: none"
    )
    max_share: float | None = Field(
        None, ge=0, le=1, description="max as a share of the budget, rounded down to a row; null: none"
    )
    share: float | None = Field(
        None,
        ge=0,
        le=1,
        description="exactly this share of the budget: where it is no whole row, the row below or above; null: none",
    )

    @model_validator(mode="after")
    def _in_order(self) -> QuotaLimit:
        given = [n for n in ("max", "min_share", "max_share") if getattr(self, n) is not None]
        given += ["min"] if self.min else []
        if self.share is not None and given:
            raise ValueError(f"share says both the least and the most: leave out {', '.join(given)}")
        if self.min and self.min_share is not None:
            raise ValueError("min and min_share both say the least: give one of them")
        if self.max is not None and self.max_share is not None:
            raise ValueError("max and max_share both say the most: give one of them")
        if self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        if self.min_share is not None and self.max_share is not None and self.min_share > self.max_share:
            raise ValueError(f"min_share {self.min_share} is above max_share {self.max_share}")
        return self

    @property
    def has_minimum(self) -> bool:
        """Whether it says how many rows there have to be."""
        return bool(self.min or self.min_share or self.share)

    @property
    def has_shares(self) -> bool:
        """Whether it goes by the budget."""
        return any(part is not None for part in (self.share, self.min_share, self.max_share))

    def of(self, budget: float, *, whole: bool = True) -> QuotaLimit:
        """The limit with shares of this budget as numbers.

        Shares are taken as they are written in decimals: 0.29 of 100 is 29, where a product of floats is below.

        Args:
            budget: in rows, or in units of the cost.
            whole: round to rows: what is least up, what is most down; the two sides of `share` the other way round.

        Raises:
            ConfigError: rounded, what is least is above what is most.

        >>> QuotaLimit(share=0.25).of(10)
        QuotaLimit(min=2, max=3, min_share=None, max_share=None, share=None)
        >>> QuotaLimit(min_share=0.25, max_share=0.29).of(100)
        QuotaLimit(min=25, max=29, min_share=None, max_share=None, share=None)
        """

        def part(share: float) -> Fraction:
            return Fraction(str(share)) * Fraction(budget)

        if self.share is not None:
            return QuotaLimit(min=math.floor(part(self.share)), max=math.ceil(part(self.share)))
        least = self.min if self.min_share is None else math.ceil(part(self.min_share))
        most: float | None = self.max
        if self.max_share is not None:
            most = math.floor(part(self.max_share)) if whole else float(part(self.max_share))
        if most is not None and least > most:
            raise ConfigError(
                f"a quota of at least {least:,} and at most {most:,g} rows, once its shares of a budget of {budget:,} "
                "are rounded, cannot be met: widen it, or give share, which takes the whole row below or above"
            )
        return QuotaLimit(min=least, max=most)


class QuotaConfig(Section):
    """Least and most rows, or most of the cost, by the value of a column (a partition matroid, with minima)."""

    column: str = Field("source", description="a column of the annotated pool, or a key of your own records")
    limits: dict[str, QuotaLimit] = Field(
        default_factory=dict, description="by value of the column, e.g. {forum: {min: 10, max: 200}}"
    )
    each: QuotaLimit | None = Field(None, description="for every value that has no limit of its own; null: no limit")
    unit: Literal["rows", "cost"] = Field(
        "rows",
        description="what limits count, and what shares are of: rows, of select.budget; or cost, units of select.cost "
        "(tokens, for example), of its budget",
    )
    missing: Literal["rejected", "unlimited"] = Field(
        "rejected",
        description="rows without a value: rejected; or unlimited, where an empty text is no value either",
    )
    first_may_exceed: bool = Field(
        False,
        description="rows that come first (select.include, an extended selection) are taken even above a maximum, and "
        "no further row of that value is; false: the run stops there",
    )

    def all_limits(self) -> list[QuotaLimit]:
        """Every limit that it has."""
        return [*self.limits.values(), *([] if self.each is None else [self.each])]

    def of(self, budget: float) -> QuotaConfig:
        """The same with shares of this budget as numbers, see `QuotaLimit.of`."""
        whole = self.unit == "rows"
        limits = {name: limit.of(budget, whole=whole) for name, limit in self.limits.items()}
        each = None if self.each is None else self.each.of(budget, whole=whole)
        return self.model_copy(update={"limits": limits, "each": each})

    @model_validator(mode="after")
    def _limits_have_the_unit(self) -> QuotaConfig:
        limits = self.all_limits()
        if self.unit == "cost" and any(limit.has_minimum for limit in limits):
            raise ValueError("unit: cost has no minimum that could be promised: give max or max_share alone")
        if self.unit == "rows" and any(limit.max is not None and limit.max != int(limit.max) for limit in limits):
            raise ValueError("max is a number of rows, so it must be whole; unit: cost counts units of the cost")
        return self

    @model_validator(mode="after")
    def _no_limit_on_nothing(self) -> QuotaConfig:
        if self.missing == "unlimited" and NO_VALUE in self.limits:
            raise ValueError("missing: unlimited takes an empty text for no value, and limits has one for it")
        return self


class CostConfig(Section):
    """A budget in units of a column, for example tokens; gain then counts by unit of cost."""

    column: str = Field("characters", description="a column above 0; `characters` is the length of all turns")
    budget: float = Field(gt=0, description="what the selected rows may cost together")


class SelectConfig(Section):
    """What to select and how."""

    strategy: Annotated[Any, OneOf(STRATEGIES, by_name=True)] = Field(
        {"kind": "mig"}, validate_default=True,
        description="how rows are chosen: mig, exactly by information gain; random; or another (docs/strategies.md)",
    )  # fmt: skip
    budget: int | None = Field(1000, ge=0, description="rows to select; null, with a cost: as many as the cost allows")
    quotas: QuotaConfig | None = Field(None, description="least and most rows by the value of a column; null: none")
    cost: CostConfig | None = Field(None, description="a budget in units of a column, such as tokens; null: none")
    given: str | None = Field(
        None, description="ids (a table or file) whose information is there from the start, such as a former selection"
    )
    include: str | None = Field(None, description="ids (a table or file) to take first")
    exclude: str | None = Field(None, description="ids (a table or file) not to take")
    label_parameters: str | None = Field(
        None,
        description="phi of single labels: a table or file with label, weight, a, b, alpha, or a JSON object {label: "
        "{weight: 2}}; `labels`: those columns of the run's own table",
    )
    target: TargetConfig | None = Field(
        None, description="the share of the selected rows' labels that each label is to have, by phi; null: none"
    )
    mode: Literal["greedy", "threshold"] = Field(
        "greedy",
        description="greedy: every row is the best one left; threshold: it may be worse by a share of epsilon, which "
        "takes fewer rounds",
    )
    epsilon: float = Field(
        0.1, gt=0, le=0.999999, description="of threshold: a row may have so much less (relative) than the best gain"
    )
    seed: int = Field(
        0, ge=0, lt=2**63,
        description="of strategies that draw at random or in parts, such as random; of mig for auto and target",
    )  # fmt: skip
    phi: PhiConfig = Field(PhiConfig(), description="the concave function of the information on a label")
    propagation: Literal["mig", "invariant"] = Field(
        "mig",
        description="how much labels that the graph joins weigh: mig, each in full, as published; invariant: as many "
        "as say the same count as one, so that splitting a label into synonyms changes nothing (docs/parameters.md)",
    )
    gain: Literal["gradient", "exact"] = Field(
        "gradient",
        description="what a row adds: gradient, as in the published code; exact, the paper's eq. 9, with the 1 - 1/e "
        "guarantee",
    )
    norm: Annotated[bool | Annotated[float, Field(ge=0, le=1)] | Literal["auto"], WrapValidator(power_or_auto)] = Field(
        False,
        description="divide a row's score by its number of labels: true; or by that to a power from 0 (false) to 1 "
        "(true); auto: the least power with which selected rows have at most 1.2 times the labels of the pool's "
        "(docs/parameters.md)",
    )
    engine: Literal["auto", "rounds", "local"] = Field(
        "auto",
        description="rounds: the pool stays in the executors; local: it is brought to the driver; auto: local where it "
        "fits. The same ids by either",
    )
    candidates: int | None = Field(
        None, ge=1, description="rows asked of all blocks in a round; null: near the budget, more after poor rounds"
    )
    block_rows: int = Field(100_000, ge=1, le=5_000_000, description="rows packed into one block at most")
    max_rounds: int = Field(
        200,
        ge=1,
        description="after so many, the rest is selected at the driver where it fits, else the run stops",
    )
    upper_bound: bool = Field(
        True, description="bound the best possible objective too, which takes a few passes over the pool"
    )

    @model_validator(mode="before")
    @classmethod
    def _words_of_before(cls, given: Any) -> Any:
        """`exact` is a gain only; the mode that was called so is `greedy`. What was of mode `stochastic` is told."""
        if not isinstance(given, dict):
            return given
        if given.get("mode") == "stochastic":
            raise ValueError(
                "mode: stochastic was taken out, since greedy takes no longer and selects better rows "
                "(docs/benchmarks.md); use mode: greedy, or mode: threshold for fewer rounds"
            )
        return {**given, "mode": "greedy"} if given.get("mode") == "exact" else given

    @property
    def tries_selections(self) -> bool:
        """Whether parameters are still to be chosen, by selections that are tried on a sample of a large pool."""
        return AUTO in (self.phi.b, self.norm) or (self.target is not None and self.target.scale is None)

    @property
    def label_exponent(self) -> float:
        """The power of a row's number of labels that its score is divided by: `norm` as a number."""
        assert not isinstance(self.norm, str), "auto stands for a number, see selection.settings.settled"
        return float(self.norm)

    def columns(self) -> list[str]:
        """The columns of the annotated pool that quotas, cost and the strategy name, beside id, labels and score."""
        return list(dict.fromkeys(column for _, column in self._named()))

    def who_names(self, column: str) -> list[str]:
        """The keys of the config that name a column: any of select.quotas, select.cost, select.strategy."""
        return list(dict.fromkeys(key for key, name in self._named() if name == column))

    def _named(self) -> list[tuple[str, str]]:
        """Keys of the config, each with a column that it names."""
        limits = [("select.quotas", self.quotas), ("select.cost", self.cost)]
        return [
            *((key, part.column) for key, part in limits if part is not None),
            *(("select.strategy", name) for name in self.strategy.reads_columns()),
        ]

    @model_validator(mode="after")
    def _strategy_goes_by_what_is_set(self) -> SelectConfig:
        own: frozenset[str] = self.strategy.goes_by
        always = {"strategy", "budget", "include", "exclude"}
        fields = {n: f for n, f in type(self).model_fields.items() if n not in own | always}
        other = [n for n, f in fields.items() if getattr(self, n) != f.get_default(call_default_factory=True)]
        if other:
            raise ValueError(
                f"strategy: {self.strategy.kind} does not go by {', '.join(other)}: leave out what it cannot keep "
                f"to (it goes by {', '.join(sorted({'budget', 'include', 'exclude'} | own))})"
            )
        return self

    @model_validator(mode="after")
    def _strategy_names_columns_of_the_pool(self) -> SelectConfig:
        if own := sorted({"quota", "cost"} & {*self.strategy.reads_columns()}):
            raise ValueError(
                f"strategy: {self.strategy.kind} needs the column {own[0]!r}, which is the name of what select.quotas "
                "and select.cost bring; its author should take another name"
            )
        return self

    @model_validator(mode="after")
    def _limits_go_together(self) -> SelectConfig:
        if self.budget is None and self.cost is None:
            raise ValueError("budget: null needs select.cost; give a number of rows, or a cost and its budget")
        limits = self.quotas.all_limits() if self.quotas else []
        if self.cost and any(limit.has_minimum for limit in limits):
            raise ValueError("quotas with a minimum and a cost cannot be promised together; drop one of them")
        if self.quotas and self.quotas.unit == "cost" and self.cost is None:
            raise ValueError(
                "quotas.unit: cost counts units of select.cost, which is not there; give one, or unit: rows"
            )
        if self.budget is None and self.quotas and self.quotas.unit == "rows" and any(x.has_shares for x in limits):
            raise ValueError(
                "quotas with shares are shares of select.budget, which is null; give a number of rows, or quotas.unit: "
                "cost for shares of the cost's budget"
            )
        if self.quotas and self.quotas.unit == "rows" and self.budget is not None:
            self.quotas.of(self.budget)
        if self.phi.b == AUTO and self.budget is None:
            raise ValueError("phi.b: auto tries selections of select.budget rows, which is null; give a number of rows")
        if self.norm == AUTO and self.budget is None:
            raise ValueError("norm: auto tries selections of select.budget rows, which is null; give a number of rows")
        if self.target is not None and self.target.corrections and self.budget is None:
            raise ValueError(
                "target.corrections try selections of select.budget rows, which is null; give a number of rows, or "
                "corrections: 0"
            )
        if self.strategy.kind == "mig" and self.seed and not self.tries_selections:
            raise ValueError(
                "strategy: mig does not go by seed, unless phi.b or norm is auto or there is a target: leave it out"
            )
        if self.mode != "threshold" and self.epsilon != type(self).model_fields["epsilon"].default:
            raise ValueError("epsilon is of mode: threshold, and mode: greedy always takes the best row; leave it out")
        if self.mode == "threshold" and self.engine == "local":
            raise ValueError("mode: threshold saves rounds, of which engine: local has none; use rounds or auto")
        return self


#: What a label may have of its own, and between which limits: so that no sum of gains leaves the range of floats.
LABEL_LIMITS = {"weight": (1e-20, 1e20), "a": (1e-50, 1e50), "b": (1e-9, math.nextafter(1, 0)), "alpha": (1e-50, 1e50)}
LABEL_PARAMETERS = tuple(LABEL_LIMITS)


def check_label_parameters(plain: dict[str, Any], path: str) -> dict[str, dict[str, float]]:
    """An object of labels to {weight, a, b, alpha}, any of them, known to be usable.

    Raises:
        ConfigError: a label has something else than numbers within LABEL_LIMITS.
    """
    for label, own in plain.items():
        numbers = isinstance(own, dict) and all(
            k in LABEL_PARAMETERS and isinstance(v, int | float) and not isinstance(v, bool) for k, v in own.items()
        )
        if not numbers or any(not LABEL_LIMITS[k][0] <= v <= LABEL_LIMITS[k][1] for k, v in own.items()):
            raise ConfigError(
                f"select.label_parameters = {path}: {label!r} has {own!r}; weight, a, b and alpha are numbers above 0, "
                "b below 1 (weight from 1e-20 to 1e20, a and alpha from 1e-50 to 1e50, b from 1e-9)"
            )
    return plain
