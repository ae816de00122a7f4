"""The error family: every error that a user can cause says what was given, why it cannot work and what to do."""

from __future__ import annotations

from mig_spark.scrub import scrub


class MigError(Exception):
    """Base of all errors raised on purpose; the command line prints it as one line and exits with `exit_code`."""

    exit_code = 2
    #: The run that ended so, where one had begun.
    run_id: str | None = None
    #: Whether the command line has printed it already.
    told: bool = False

    def __str__(self) -> str:
        """What it says, without any secret: this is what is printed, logged and stored."""
        return scrub(super().__str__())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class ConfigError(MigError, ValueError):
    """A config has an unknown key, a value of the wrong type, or values that cannot go together."""


class InputError(MigError, ValueError):
    """A pool, table or file given by the user is missing, unreadable or has nothing usable in it."""


class ContractError(MigError, ValueError):
    """A table does not have the columns that its contract declares."""


class DependencyError(MigError, ImportError):
    """An optional package or a JVM library that this step needs is not there."""


class PlatformError(MigError, RuntimeError):
    """The Spark platform lacks something that this step needs (a JVM gateway, a writable folder, a checkpoint)."""


class DriverEndedError(PlatformError):
    """The driver's JVM ended before its time: out of memory, or killed."""


class NotCertifiedError(MigError, RuntimeError):
    """The exact selection could not be certified within the limits that the config sets."""


class AnnotationError(MigError, RuntimeError):
    """Annotation went wrong for so many rows, or in such a way, that going on would waste money or mislead."""


class LeaseError(MigError, RuntimeError):
    """Another run is writing into the same tables."""


class GateError(MigError, RuntimeError):
    """A quality gate failed: the evidence is written, and what was published before stays."""

    exit_code = 3


class ExportError(MigError, RuntimeError):
    """A format cannot hold every row of the selection, and `--strict` asked for all of them: nothing is written."""

    exit_code = 3


class ReplayError(MigError, RuntimeError):
    """A run cannot be replayed: what it read is gone, or its record does not say what it read."""
