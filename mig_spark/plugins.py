"""The members of each family that a config picks by name: built-in ones, and those that installed packages bring.

A family is a `Registry`: one line a built-in member, and a group of entry points (PyPA's entry points specification)
for third parties. A member is imported when a config names it, or when all are to be listed; never when `mig_spark` is.
docs/extending.md shows how to write one.
"""

from __future__ import annotations

import difflib
import importlib
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mig_spark.errors import ConfigError, DependencyError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Registry(Generic[T]):
    """One family.

    Args:
        role: what messages call a member, for example `tagger`.
        group: the entry-point group in which packages announce theirs.
        built_in: name to `module:attribute`, in the order in which they are listed.
        base: `module:attribute` of the class that every member has to extend; None: members of any type.

    A built-in name cannot be taken by a package: the built-in member stays, and a warning says so.
    """

    def __init__(self, role: str, group: str, built_in: Mapping[str, str], *, base: str | None = None) -> None:
        self.role, self.group = role, group
        self._built_in, self._base = dict(built_in), base

    def names(self) -> tuple[str, ...]:
        """All names: built-in ones in the table's order, then those of packages in order. Nothing is imported."""
        return (*self._built_in, *sorted({point.name for point in self._points()} - set(self._built_in)))

    def get(self, name: str) -> T:
        """The member of this name, imported now.

        Raises:
            ConfigError: there is none; the message lists those that there are.
            DependencyError: the package that brings it cannot be imported, it brings something else than a member of
                this family, or two packages bring the same name.
        """
        if name in self._built_in:
            member: T = _import(self._built_in[name])
            return member
        found = [point for point in self._points() if point.name == name]
        if not found:
            raise ConfigError(f"{name!r} is no {self.role}: {self.hint(name)}")
        return self._load(name, found)

    def all(self) -> dict[str, T]:
        """Every member by name, for lists and schemas; a package's member that cannot be loaded is left out, with a
        warning."""
        points = list(self._points())
        for point in points:
            if point.name in self._built_in:
                logger.warning("the %s %s is built in: that of %s is not used", self.role, point.name, _origin(point))
        found = {name: self._get_or_warn(name) for name in self.names()}
        return {name: member for name, member in found.items() if member is not None}

    def extends(self, member: Any) -> bool:
        """Whether an object is of the class that every member has to extend."""
        return self._base is not None and isinstance(member, _import(self._base))

    def hint(self, name: str) -> str:
        """What a message about an unknown name says: the known ones, and the nearest."""
        names = self.names()
        near = difflib.get_close_matches(name, names, n=1)
        nearest = f"; did you mean {near[0]!r}?" if near else ""
        return f"known are {', '.join(names)}{nearest} (packages bring others by the entry points {self.group})"

    def _get_or_warn(self, name: str) -> T | None:
        try:
            return self.get(name)
        except DependencyError as e:
            logger.warning("%s", e)
            return None

    def _points(self) -> list[EntryPoint]:
        # looked up anew each time: a notebook may install a package while it runs
        from importlib.metadata import entry_points

        # a distribution that is on the path twice is one
        return list({(p.name, p.value): p for p in entry_points(group=self.group)}.values())

    def _load(self, name: str, found: list[EntryPoint]) -> T:
        what = f"the {self.role} {name!r} of {_origin(found[0])}"
        if len(found) > 1:
            others = " and ".join(sorted(_origin(point) for point in found))
            raise DependencyError(f"the {self.role} {name!r} is brought by {others}: uninstall all but one of them")
        try:
            member: Any = found[0].load()
        except Exception as e:
            # another author's module may raise anything
            said = " ".join(str(e).split())
            raise DependencyError(
                f"{what} cannot be imported ({type(e).__name__}: {said}): repair or uninstall that package, or name "
                f"another {self.role}"
            ) from e
        base = None if self._base is None else _import(self._base)
        if base is not None and not (isinstance(member, type) and issubclass(member, base)):
            raise DependencyError(
                f"{what} is not a class that extends {self._base}, so it cannot be used as a {self.role}: see "
                "docs/extending.md"
            )
        loaded: T = member
        return loaded


def _origin(point: EntryPoint) -> str:
    package = "" if point.dist is None else f"{point.dist.name}, "
    return f"{package}{point.value}"


def _import(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


#: A line a kind of `select.strategy`.
STRATEGIES: Registry[Any] = Registry(
    "strategy",
    "mig_spark.strategies",
    {
        "mig": "mig_spark.selection.strategies.mig:Mig",
        "random": "mig_spark.selection.strategies.random:Random",
        "top": "mig_spark.selection.strategies.top:Top",
        "matched": "mig_spark.selection.strategies.matched:Matched",
        "instag": "mig_spark.selection.strategies.instag:Instag",
        "deita": "mig_spark.selection.strategies.deita:Deita",
        "k_center": "mig_spark.selection.strategies.k_center:KCenter",
        "car": "mig_spark.selection.strategies.car:Car",
        "qdit": "mig_spark.selection.strategies.qdit:Qdit",
    },
    base="mig_spark.selection.strategy:Strategy",
)

#: A line a kind of `annotate.tagger`.
TAGGERS: Registry[Any] = Registry(
    "tagger",
    "mig_spark.taggers",
    {
        "column": "mig_spark.annotation.taggers.column:ColumnTagger",
        "embedding": "mig_spark.annotation.taggers.embedding:EmbeddingTagger",
        "distilled": "mig_spark.annotation.taggers.distilled:DistilledTagger",
        "instag": "mig_spark.annotation.taggers.instag:InstagTagger",
        "endpoint": "mig_spark.annotation.taggers.endpoint:EndpointTagger",
        "student": "mig_spark.annotation.taggers.student:StudentTagger",
    },
    base="mig_spark.annotation.annotator:Tagger",
)

#: A line a kind of `annotate.scorer`.
SCORERS: Registry[Any] = Registry(
    "scorer",
    "mig_spark.scorers",
    {
        "column": "mig_spark.annotation.scorers.column:ColumnScorer",
        "heuristic": "mig_spark.annotation.scorers.heuristic:HeuristicScorer",
        "deita": "mig_spark.annotation.scorers.deita:DeitaScorer",
        "ifd": "mig_spark.annotation.scorers.ifd:IfdScorer",
        "reward": "mig_spark.annotation.scorers.reward:RewardScorer",
        "endpoint": "mig_spark.annotation.scorers.endpoint:EndpointScorer",
        "combine": "mig_spark.annotation.scorers.combine:CombineScorer",
        "student": "mig_spark.annotation.scorers.student:StudentScorer",
    },
    base="mig_spark.annotation.annotator:Scorer",
)

#: A line a format of `mig-spark export` and `output.exports`.
EXPORTS: Registry[Any] = Registry(
    "format",
    "mig_spark.exports",
    {
        "records": "mig_spark.export.formats.records:Records",
        "messages": "mig_spark.export.formats.messages:Messages",
        "alpaca": "mig_spark.export.formats.alpaca:Alpaca",
        "sharegpt": "mig_spark.export.formats.sharegpt:Sharegpt",
        "llamafactory": "mig_spark.export.formats.llamafactory:LlamaFactory",
        "trl": "mig_spark.export.formats.trl:Trl",
        "axolotl": "mig_spark.export.formats.axolotl:Axolotl",
        "parquet": "mig_spark.export.formats.parquet:Parquet",
        "delta": "mig_spark.export.formats.delta:Delta",
        "huggingface": "mig_spark.export.formats.huggingface:HuggingFace",
    },
    base="mig_spark.export.format:Format",
)
