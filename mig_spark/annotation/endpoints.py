"""What taggers and scorers behind an OpenAI-compatible endpoint have in common."""

from __future__ import annotations

import json
import os
import re
import urllib.parse
from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator

from mig_spark.config.base import Section
from mig_spark.kernels.annotation.annotators import CostKind
from mig_spark.kernels.annotation.endpoint import Settings
from mig_spark.masking import CREDENTIALS_IN_QUERY
from mig_spark.scrub import is_variable_name, looks_like_key, remember_secret

#: what can change an answer, so that it belongs to the version
_SAID = ("model", "max_output_tokens", "max_chars", "body")
_HOW = (
    "api_key_env",
    "auth_header",
    "timeout",
    "max_response_bytes",
    "concurrency",
    "max_tries",
    "max_wait",
    "breaker",
)


class SecretConfig(Section):
    """A secret of a Databricks secret scope; the driver reads it when tasks are about to ask."""

    scope: str = Field(min_length=1, description="name of the secret scope")
    key: str = Field(min_length=1, description="the secret's name in the scope; not the secret itself")

    @field_validator("scope", "key")
    @classmethod
    def _no_key_itself(cls, name: str) -> str:
        if looks_like_key(name):
            raise ValueError(
                "this looks like the key itself (it is not shown here); give the name that it is stored by"
            )
        return name


class PriceConfig(Section):
    """What an endpoint's tokens cost, in dollars: for --dry-run, the line of progress and `mig-spark runs`."""

    prompt: float = Field(ge=0, allow_inf_nan=False, description="dollars for a million tokens of requests")
    completion: float = Field(ge=0, allow_inf_nan=False, description="dollars for a million tokens of answers")


class EndpointConfig(Section):
    """An OpenAI-compatible chat endpoint, asked from the executors; see docs/annotation.md."""

    cost: ClassVar[CostKind] = "paid"

    base_url: str = Field(description="address of the server: POST goes to {base_url}/chat/completions")
    model: str = Field(description="name of the model, as the server knows it")
    api_key_env: str | None = Field(
        None, description="environment variable of the executors that holds the key; null: no key is sent"
    )
    api_key_secret: SecretConfig | None = Field(
        None, description="on Databricks, in place of api_key_env: scope and key of a secret"
    )
    auth_header: str = Field(
        "Authorization", description="header that carries the key, as `Bearer <key>`; under another name it goes bare"
    )
    max_output_tokens: int = Field(256, ge=1, description="tokens of an answer, at most")
    max_chars: int = Field(
        24_000, ge=200, description="characters of a row that are sent; of a longer row the middle is left out, flagged"
    )
    timeout: float = Field(60.0, gt=0, description="seconds for a request, from connecting to the answer's last byte")
    max_response_bytes: int = Field(
        4 * 2**20, ge=1024, description="bytes of a reply (4 MiB); a longer one is given up, and its row has failed"
    )
    concurrency: int = Field(8, ge=1, le=256, description="requests under way at a time in one task")
    max_tasks: int = Field(16, ge=1, description="tasks that ask at a time, in the whole cluster")
    requests_per_second: float | None = Field(
        None, gt=0, description="rate of requests, of all tasks together; null: no limit but concurrency"
    )
    max_tries: int = Field(6, ge=1, le=20, description="tries of a row in one run, after failures that may pass")
    max_wait: float = Field(30.0, ge=0, description="seconds between two tries, at most")
    breaker: int = Field(
        10,
        ge=1,
        description="a task stops asking after so many rows in a row whose tries are used up without an answer",
    )
    body: dict[str, Any] = Field(
        default_factory=dict, description="further keys of the request's JSON; null leaves one of ours out"
    )
    # it changes no result, so no stage's key and no record has it
    price: PriceConfig | None = Field(
        None,
        exclude=True,
        description="what tokens cost, so that --dry-run, progress and `runs` tell money; null: it is not told",
    )

    @field_validator("base_url")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        check_url(url)
        return url

    @field_validator("api_key_env")
    @classmethod
    def _name_of_a_variable(cls, name: str | None) -> str | None:
        if name is not None and not is_variable_name(name):
            raise ValueError(
                "this is not the name of an environment variable (letters, digits and _, as LLM_KEY), and perhaps the "
                "key itself, so it is not shown here; put the key into a variable and give its name"
            )
        return name

    @field_validator("auth_header")
    @classmethod
    def _name_of_a_header(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name) or looks_like_key(name):
            raise ValueError(
                "this is not the name of a header (as Authorization or api-key); the value is not shown here"
            )
        return name

    @model_validator(mode="after")
    def _can_be_sent(self) -> EndpointConfig:
        if self.api_key_env and self.api_key_secret:
            raise ValueError("api_key_env and api_key_secret both say where the key is; leave one out")
        try:
            json.dumps([self.model, self.body], ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError):
            raise ValueError(
                "model and body go out as JSON, and something in them cannot: a date, .nan, half a sign"
            ) from None
        return self

    def said(self) -> dict[str, Any]:
        """What can change an answer. The address is not among it: the same model may move."""
        return {name: getattr(self, name) for name in _SAID}

    def settings(self, **more: Any) -> Settings:
        """Everything that the executors need, as plain values: `said`, `more`, and how to ask."""
        # where the driver has the variable too, what it says is cut out of all that is told
        remember_secret(os.environ.get(self.api_key_env or "", "").strip())
        secret = self.api_key_secret
        base, _, query = self.base_url.partition("?")
        return {
            **more,
            **self.said(),
            **{name: getattr(self, name) for name in _HOW},
            "api_key_secret": None if secret is None else (secret.scope, secret.key),
            "url": f"{base.rstrip('/')}/chat/completions" + (f"?{query}" if query else ""),
            "requests_per_second": self.requests_per_second,
            "price": None if self.price is None else (self.price.prompt, self.price.completion),
            "tasks": self.max_tasks,
        }


def check_url(url: str) -> None:
    """See that requests can go to this address, and that no secret is in it. No message shows the address itself.

    Raises:
        ValueError: it is no http(s) address, its port is none, it is not ASCII, or a secret is in it.
    """
    example = "for example http://localhost:8000/v1"
    if not url.isascii():
        raise ValueError("it has letters beyond ASCII: write the host as xn--... and the rest with %XX")
    if re.search(r"[\x00-\x20\x7f<>\"{}|\\^`]", url):
        raise ValueError(
            f"it has a space, a line break or another sign that no address has; write it plainly, {example}"
        )
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"its host or port is none (a port is a number from 1 to 65535), {example}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"it is not an http or https address; give one, {example}")
    if port == 0:
        raise ValueError("its port is 0; a port is a number from 1 to 65535")
    if "@" in parts.netloc:
        raise ValueError("it carries a name or password, not shown here; name a variable with the key in api_key_env")
    if "#" in url:
        raise ValueError("it has a part after #, which is never sent; leave it out")
    names = [name for name, _ in urllib.parse.parse_qsl(parts.query, keep_blank_values=True)]
    secret = sorted({name for name in names if re.fullmatch(CREDENTIALS_IN_QUERY, name, re.IGNORECASE)})
    if secret:
        raise ValueError(
            f"it carries a secret in the parameter {', '.join(secret)}, not shown here; name a variable with the key "
            "in api_key_env, and its header in auth_header"
        )
