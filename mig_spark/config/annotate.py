"""Who labels and who scores."""

from __future__ import annotations

import json
import re
import string
import urllib.parse
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from mig_spark.config.base import DEFAULT_MODEL, Section
from mig_spark.masking import CREDENTIALS_IN_QUERY
from mig_spark.scrub import is_variable_name, looks_like_key


class ColumnTagger(Section):
    """Labels that the pool brought."""

    kind: Literal["column"] = "column"
    valid_labels: str | None = Field(None, description="JSON list of labels; labels outside it are left out, counted")


class EmbeddingTagger(Section):
    """Zero-shot: the labels of the vocabulary that are nearest to the row's text, by a sentence-transformers model."""

    kind: Literal["embedding"] = "embedding"
    model: str = DEFAULT_MODEL
    vocabulary: str = Field("builtin", description="builtin, or a JSON list of labels, one path")
    top: int = Field(6, ge=1, le=64, description="at most this many labels a row")
    floor: float = Field(0.22, ge=-1, le=1, description="least cosine similarity of a label")
    margin: float = Field(0.12, ge=0, le=2, description="labels further than this below the best one are left out")
    batch_tokens: int = Field(8192, ge=64, description="tokens a batch, padding included")
    max_tokens: int = Field(256, ge=16, description="longer texts are cut here, and counted as truncated")


class SecretConfig(Section):
    """A secret of a Databricks secret scope; the driver reads it when tasks are about to ask."""

    scope: str = Field(min_length=1)
    key: str = Field(min_length=1, description="the secret's name in the scope")

    @field_validator("scope", "key")
    @classmethod
    def _no_key_itself(cls, name: str) -> str:
        if looks_like_key(name):
            raise ValueError(
                "this looks like the key itself (it is not shown here); give the name that it is stored by"
            )
        return name


class EndpointConfig(Section):
    """An OpenAI-compatible chat endpoint, asked from the executors; see docs/annotation.md."""

    base_url: str = Field(description="POST goes to {base_url}/chat/completions")
    model: str
    api_key_env: str | None = Field(None, description="environment variable of the executors that holds the key")
    api_key_secret: SecretConfig | None = Field(None, description="Databricks: scope and key of a secret, instead")
    auth_header: str = Field("Authorization", description="header of the key; with another name it goes out bare")
    max_output_tokens: int = Field(256, ge=1)
    max_chars: int = Field(24_000, ge=200, description="of longer rows the middle is left out, flagged truncated")
    timeout: float = Field(60.0, gt=0, description="seconds for a request, from connecting to the answer's last byte")
    max_response_bytes: int = Field(4 * 2**20, ge=1024, description="a longer answer is given up; its row has failed")
    concurrency: int = Field(8, ge=1, le=256, description="requests at a time in one task")
    max_tasks: int = Field(16, ge=1, description="tasks that ask at a time")
    requests_per_second: float | None = Field(None, gt=0, description="by all tasks together")
    max_tries: int = Field(6, ge=1, le=20, description="tries a row in one run")
    max_wait: float = Field(30.0, ge=0, description="longest pause in seconds between two tries")
    breaker: int = Field(10, ge=1, description="a task stops asking when so many rows in a row got no answer")
    body: dict[str, Any] = Field(default_factory=dict, description="further keys of the request; null leaves one out")

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


class EndpointTagger(EndpointConfig):
    """Labels by a language model behind an endpoint."""

    kind: Literal["endpoint"] = "endpoint"
    top: int = Field(6, ge=1, le=64, description="at most this many labels a row")
    vocabulary: str | None = Field(None, description="builtin or a JSON list, to choose from; default: free labels")
    language: str | None = Field("English", description="of free labels; null: that of the conversation")


class DistilledTagger(Section):
    """As `embedding`, by static token vectors that are distilled from the model once: for CPUs and very large pools."""

    kind: Literal["distilled"] = "distilled"
    model: str = DEFAULT_MODEL
    vocabulary: str = Field("builtin", description="builtin, or a JSON list of labels, one path")
    top: int = Field(6, ge=1, le=64, description="at most this many labels a row")
    floor: float = Field(0.2, ge=-1, le=1, description="least cosine similarity of a label")
    margin: float = Field(0.1, ge=0, le=2, description="labels further than this below the best one are left out")
    max_tokens: int = Field(256, ge=16, description="longer texts are cut here, and counted as truncated")
    sample: str = Field("builtin", description="rows that it is fitted on: a file of them, JSONL or JSON, as in a pool")
    cache_dir: str | None = Field(None, description="folder of distilled models; default: the user's cache folder")

    @model_validator(mode="after")
    def _a_folder_for_files(self) -> DistilledTagger:
        if self.cache_dir and re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", self.cache_dir):
            raise ValueError("cache_dir is a folder that Python opens on every node, for example /Volumes/... or /tmp")
        return self


class LanguageModelConfig(Section):
    """How models are run through transformers in the executors."""

    revision: str | None = Field(None, description="of a model on the hub: a branch, tag or commit")
    device: str = Field("auto", description="auto: the first GPU, else the CPU; or cpu, cuda, cuda:1, ...")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="auto: float32 on a CPU")
    batch_tokens: int = Field(8192, ge=1, description="tokens a batch, padding included")
    max_tokens: int = Field(2048, ge=16, description="longer prompts are cut here, and flagged")


class InstagTagger(LanguageModelConfig):
    """Free tags by a causal language model in the manner of InsTag; the vocabulary stage makes labels of them."""

    kind: Literal["instag"] = "instag"
    model: str = Field(description="causal language model: a name on the hub or a folder")
    prompt: str | None = Field(None, description="with {text}; {{ and }} for braces; default: our own")
    max_new_tokens: int = Field(384, ge=1, description="tokens an answer")

    @model_validator(mode="after")
    def _prompt_has_its_places(self) -> InstagTagger:
        check_prompt("prompt", self.prompt, "text")
        return self


Tagger = Annotated[
    ColumnTagger | EmbeddingTagger | DistilledTagger | InstagTagger | EndpointTagger, Field(discriminator="kind")
]


class ColumnScorer(Section):
    """Scores that the pool brought."""

    kind: Literal["column"] = "column"


class HeuristicScorer(Section):
    """Transparent rules over the text, no model; docs/heuristics.md lists them."""

    kind: Literal["heuristic"] = "heuristic"


class EndpointScorer(EndpointConfig):
    """Quality and complexity, 1 to 6 each, judged by a language model behind an endpoint; score: their product."""

    kind: Literal["endpoint"] = "endpoint"


class DeitaScorer(LanguageModelConfig):
    """Quality and complexity, 1 to 6 each, as the expected grade of causal models, one pair a turn."""

    kind: Literal["deita"] = "deita"
    quality_model: str = Field(description="grades answers: a name on the hub or a folder")
    complexity_model: str = Field(description="grades instructions; may be the same one")
    quality_prompt: str | None = Field(None, description="with {instruction} and {response}; default: our own")
    complexity_prompt: str | None = Field(None, description="with {instruction}; default: our own")
    aggregate: Literal["mean", "sum"] = Field("mean", description="of quality x complexity over a row's turns")
    chat: bool = Field(True, description="use the model's chat template where it has one")

    @model_validator(mode="after")
    def _prompts_have_their_places(self) -> DeitaScorer:
        check_prompt("quality_prompt", self.quality_prompt, "instruction", "response")
        check_prompt("complexity_prompt", self.complexity_prompt, "instruction")
        return self


class IfdScorer(LanguageModelConfig):
    """Instruction-following difficulty: the answer's loss with the instruction over its loss without."""

    kind: Literal["ifd"] = "ifd"
    model: str = Field(description="causal language model: a name on the hub or a folder")
    chat: bool = Field(True, description="use the model's chat template where it has one")


class RewardScorer(LanguageModelConfig):
    """A sequence-classification reward model."""

    kind: Literal["reward"] = "reward"
    model: str = Field(description="sequence classifier: a name on the hub or a folder")
    label: int = Field(0, ge=0, description="the good class, where the model has more than one")
    activation: Literal["sigmoid", "none"] = Field("sigmoid", description="none: for rewards that are never negative")


Part = Annotated[HeuristicScorer | DeitaScorer | IfdScorer | RewardScorer | EndpointScorer, Field(discriminator="kind")]


class CombineScorer(Section):
    """Quality by one scorer, complexity by another."""

    kind: Literal["combine"] = "combine"
    quality: Part = Field(description="a scorer: its quality counts, else its score")
    complexity: Part = Field(description="a scorer: its complexity counts, else its score")

    @model_validator(mode="after")
    def _no_answer_is_paid_twice(self) -> CombineScorer:
        parts = [part for part in (self.quality, self.complexity) if isinstance(part, EndpointScorer)]
        asked = [(p.base_url, p.model, p.max_output_tokens, p.max_chars, p.body) for p in parts]
        if len(asked) > 1 and asked[0] == asked[1]:
            raise ValueError("one judge says both quality and complexity at once; set kind: endpoint, not combine")
        return self


Scorer = Annotated[
    ColumnScorer | HeuristicScorer | DeitaScorer | IfdScorer | RewardScorer | CombineScorer | EndpointScorer,
    Field(discriminator="kind"),
]

ScoreColumn = Literal["quality", "complexity", "score", "given.quality", "given.complexity", "given.score", "given.ifd"]


class ScoreConfig(Section):
    """The score that selects, from what was annotated; the annotations themselves stay as they are."""

    columns: list[ScoreColumn] = Field(default=["score"], min_length=1, description="what the score is made of")
    combine: Literal["product", "sum", "weighted_product"] = Field(
        "product", description="weighted_product: each column to the power of its weight"
    )
    weights: dict[ScoreColumn, float] = Field(default_factory=dict, description="of sum and weighted_product; else 1")
    normalize: Literal["none", "rank", "z", "min-max"] = Field("none", description="each column, before combining")
    per_source: bool = Field(False, description="normalise within each source")
    missing: float | None = Field(None, ge=0, description="in place of a value that is not there, once normalised")

    @model_validator(mode="after")
    def _weights_fit(self) -> ScoreConfig:
        if len(set(self.columns)) < len(self.columns):
            raise ValueError(f"columns name one twice: {', '.join(self.columns)}")
        if self.weights and self.combine == "product":
            raise ValueError("weights have no effect on a product; set combine: weighted_product or sum")
        strange = [name for name in self.weights if name not in self.columns]
        if strange:
            raise ValueError(f"weights for {', '.join(strange)}, which is not among columns")
        if any(weight < 0 or weight == float("inf") or weight != weight for weight in self.weights.values()):
            raise ValueError("weights must be numbers from 0 on, or a score could be negative")
        if self.per_source and self.normalize == "none":
            raise ValueError("per_source has no effect without normalize: set it to rank, z or min-max")
        return self

    @property
    def is_plain(self) -> bool:
        """Whether the score stays what the scorer said."""
        alone = self.columns == ["score"] and self.normalize == "none" and self.missing is None
        return alone and self.weights.get("score", 1.0) == 1.0


class AnnotateConfig(Section):
    """Who labels and who scores."""

    tagger: Tagger = EmbeddingTagger()
    scorer: Scorer = HeuristicScorer()
    score: ScoreConfig = ScoreConfig()
    allow_degenerate: bool = Field(False, description="go on when scores are constant or most rows have no label")
    chunk_rows: int = Field(20_000, ge=1, description="rows annotated and committed at a time, where models cost")
    max_attempts: int = Field(3, ge=1, description="runs that try a row before it is rejected")
    max_requests: int | None = Field(None, ge=1, description="requests to endpoints that a run may make")
    max_tokens: int | None = Field(None, ge=1, description="tokens, in and out, that a run may use at endpoints")
    spill_path: str | None = Field(None, description="folder for paid answers under way; default: under output.path")


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


def check_prompt(name: str, prompt: str | None, *places: str) -> None:
    """See that a prompt has the places that are filled, and no others.

    Raises:
        ValueError: it has not.
    """
    if prompt is None:
        return
    try:
        found = {field for _, field, _, _ in string.Formatter().parse(prompt) if field is not None}
    except ValueError as e:
        raise ValueError(f"{name} has a brace that stands alone ({e}); write {{{{ and }}}} for braces") from None
    if found != set(places):
        wanted = " and ".join(f"{{{place}}}" for place in places)
        raise ValueError(f"{name} must have {wanted} and nothing else in braces; write {{{{ and }}}} for braces")
