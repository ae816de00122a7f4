"""Taggers and judges behind an endpoint, as annotators: names, versions, kernel parameters, and where their key is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from mig_spark.annotation.annotator import Annotator, version_of
from mig_spark.config import EndpointConfig, EndpointScorer, EndpointTagger
from mig_spark.errors import DependencyError, PlatformError
from mig_spark.kernels.annotation.annotators import OUTSIDE, SCORES, TAGS, TRUNCATED, Step, asks, parts_of
from mig_spark.kernels.annotation.endpoint import Secret
from mig_spark.kernels.annotation.prompts import PROMPT_VERSION
from mig_spark.scrub import is_sendable_key, remember_secret

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SecretName = tuple[str, str]


def endpoint_tagger(config: EndpointTagger, vocabulary: list[str] | None) -> Annotator:
    """Labels by a language model, from the vocabulary where there is one."""
    flags = (TRUNCATED,) if vocabulary is None else (TRUNCATED, OUTSIDE)
    # a list's labels are in the list's language
    language = config.language if vocabulary is None else None
    return _endpoint(config, "endpoint_labels", TAGS, flags, top=config.top, vocabulary=vocabulary, language=language)


def endpoint_scorer(config: EndpointScorer) -> Annotator:
    """Quality and complexity by a language model."""
    return _endpoint(config, "endpoint_scores", SCORES, (TRUNCATED,))


def _endpoint(
    config: EndpointConfig, kernel: str, makes: tuple[str, ...], flags: tuple[str, ...], **said: Any
) -> Annotator:
    """An annotator behind an endpoint. Its version does not cover the address: the same model may move."""
    said |= {name: getattr(config, name) for name in ("model", "max_output_tokens", "max_chars", "body")}
    names = ("api_key_env", "auth_header", "timeout", "max_response_bytes", "concurrency", "max_tries", "max_wait",
             "breaker")  # fmt: skip
    settings = {**said, **{name: getattr(config, name) for name in names}}
    secret = config.api_key_secret
    # where the driver has the variable too, what it says is cut out of all that is told
    remember_secret(os.environ.get(config.api_key_env or "", "").strip())
    settings["api_key_secret"] = None if secret is None else (secret.scope, secret.key)
    base, _, query = config.base_url.partition("?")
    settings["url"] = f"{base.rstrip('/')}/chat/completions" + (f"?{query}" if query else "")
    settings |= {"requests_per_second": config.requests_per_second, "tasks": config.max_tasks}
    version = version_of(prompt=PROMPT_VERSION, kernel=kernel, **said)
    return Annotator(
        f"endpoint {config.model}",
        version,
        makes,
        flags=flags,
        step=(kernel, {"settings": settings}),
        may_fail=True,
        max_tasks=config.max_tasks,
    )


class Secrets(Protocol):
    """The part of `dbutils.secrets` that is used."""

    def get(self, *, scope: str, key: str) -> str:
        """A secret in the clear."""


def look_up_secrets(steps: Sequence[Step], spark: SparkSession) -> dict[SecretName, Secret]:
    """The keys that the steps name by scope and key, looked up by the driver: executors have no way to a scope.

    They belong in the closure of the tasks and nowhere else. Keys in the environment are read by the executors; one
    that the driver sees too, and that no request can carry, is refused here.

    Raises:
        DependencyError: a key is named, and this is no Databricks workspace.
        PlatformError: there is no such scope or key, it may not be read, it is empty, or no request can carry it.
    """
    asking = [part for step in steps for part in parts_of(step).values() if asks(part)]
    for variable in {parameters["settings"]["api_key_env"] for _, parameters in asking} - {None}:
        _see_that_it_is_a_key(os.environ.get(variable, "").strip() or "-", f"the variable {variable}")
    names = {parameters["settings"]["api_key_secret"] for _, parameters in asking} - {None}
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
