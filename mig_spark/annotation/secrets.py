"""Endpoint keys that a config names by scope and key of a Databricks secret: the driver reads them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from mig_spark.errors import DependencyError, PlatformError
from mig_spark.kernels.annotation.annotators import Step
from mig_spark.kernels.annotation.endpoint import Secret
from mig_spark.scrub import is_sendable_key, remember_secret

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SecretName = tuple[str, str]


class Secrets(Protocol):
    """The part of `dbutils.secrets` that is used."""

    def get(self, *, scope: str, key: str) -> str:
        """A secret in the clear."""


def look_up_secrets(steps: Sequence[Step], spark: SparkSession) -> dict[SecretName, Secret]:
    """Read the secrets that steps name by scope and key; only the driver can read a scope.

    The result may go into the closure of tasks and nowhere else. Keys that are named by environment variables are read
    by the executors; where the driver has the variable too, its value is checked here.

    Returns:
        The keys by (scope, key).

    Raises:
        DependencyError: a key is named, and this is no Databricks workspace.
        PlatformError: there is no such scope or key, it may not be read, it is empty, or no request can carry it.
    """
    asked = [leaf.ask.settings for step in steps for leaf in step.leaves if leaf.ask is not None]
    for variable in {settings["api_key_env"] for settings in asked} - {None}:
        _see_that_it_is_a_key(os.environ.get(variable, "").strip() or "-", f"the variable {variable}")
    names = {settings["api_key_secret"] for settings in asked} - {None}
    if not names:
        return {}
    vault = _vault(spark, sorted(names)[0])
    return {name: _look_up(vault, name) for name in sorted(names)}


def _vault(spark: SparkSession, name: SecretName) -> Secrets:
    dbutils: Any
    try:
        from pyspark.dbutils import DBUtils  # type: ignore[import-not-found]

        dbutils = DBUtils(spark)
    except ImportError:
        raise DependencyError(
            f"api_key_secret names the key {name[1]!r} of the secret scope {name[0]!r}, and there are no secret scopes "
            "here (no dbutils): they are Databricks' own; elsewhere put the key into a variable of the executors' "
            "environment and name that in api_key_env"
        ) from None
    secrets: Secrets = dbutils.secrets
    return secrets


def _look_up(vault: Secrets, name: SecretName) -> Secret:
    scope, key = name
    try:
        value = vault.get(scope=scope, key=key).strip()
    except Exception as e:  # noqa: BLE001 - Java's and the SDK's errors have no base of their own
        first = (str(e).strip().splitlines() or [""])[0][:200]
        raise PlatformError(
            f"cannot read the key {key!r} of the secret scope {scope!r} ({type(e).__name__}: {first}): create it, or "
            "give whoever runs this the right to read it"
        ) from None
    if not value:
        raise PlatformError(f"the key {key!r} of the secret scope {scope!r} is empty: store the endpoint's key in it")
    remember_secret(value)
    _see_that_it_is_a_key(value, f"the key {key!r} of the secret scope {scope!r}")
    return Secret(value)


def _see_that_it_is_a_key(value: str, where: str) -> None:
    if not is_sendable_key(value):
        raise PlatformError(
            f"{where} holds no key that a request can carry, for there is a space, a line break or a sign beyond ASCII "
            "inside (it is not shown here): store the bare key, without its name and without quotes"
        )
