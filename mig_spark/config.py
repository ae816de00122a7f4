"""One typed config: the command line, the jobs, the notebooks and the tests all build the same object.

Unknown keys, ill-typed values and impossible combinations are refused when the config is built, with the key's full
name and the nearest known key.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import string
import urllib.parse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mig_spark.errors import ConfigError

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
#: Cosine scales differ by model: 0.9 is what the paper used with E5-Mistral; short phrases under MiniLM that mean the
#: same lie lower (docs/parameters.md shows the pairs that each threshold joins).
MODEL_THRESHOLDS = {"all-MiniLM-L6-v2": 0.75}
PAPER_THRESHOLD = 0.9


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, protected_namespaces=())


_M = TypeVar("_M", bound=_Model)


class PoolConfig(_Model):
    """Where the rows come from and how to read them."""

    path: str | list[str] = Field(description="file, folder, glob, Delta path or catalog table; or a list of them")
    format: Literal["auto", "delta", "parquet", "jsonl", "json"] = "auto"
    schema_: Literal["auto", "alpaca", "pair", "sharegpt", "messages", "mig"] = Field("auto", alias="schema")
    columns: dict[
        Literal[
            "id",
            "source",
            "prompt",
            "response",
            "input",
            "system",
            "messages",
            "labels",
            "score",
            "quality",
            "complexity",
        ],
        str,
    ] = Field(default_factory=dict, description="your column's name for its role, e.g. {prompt: question}; '' for none")
    source: str | None = Field(None, description="one source name for all rows that bring none")


class OutputConfig(_Model):
    """Where the tables, the selection and the report go: a folder, or a catalog and database.

    With a database the tables go there; a path as well then takes the report and the selection file.
    """

    path: str | None = None
    catalog: str | None = None
    database: str | None = None

    @model_validator(mode="after")
    def _one_place(self) -> OutputConfig:
        if not self.path and not self.database:
            raise ValueError("give output.path (a folder), or output.database with or without output.catalog")
        return self


class ColumnTagger(_Model):
    """Labels that the pool brought."""

    kind: Literal["column"] = "column"
    valid_labels: str | None = Field(None, description="JSON list of labels; labels outside it are left out, counted")


class EmbeddingTagger(_Model):
    """Zero-shot: the labels of the vocabulary that are nearest to the row's text, by a sentence-transformers model."""

    kind: Literal["embedding"] = "embedding"
    model: str = DEFAULT_MODEL
    vocabulary: str = Field("builtin", description="builtin, or a JSON list of labels, one path")
    top: int = Field(6, ge=1, le=64, description="at most this many labels a row")
    floor: float = Field(0.22, ge=-1, le=1, description="least cosine similarity of a label")
    margin: float = Field(0.12, ge=0, le=2, description="labels further than this below the best one are left out")
    batch_tokens: int = Field(8192, ge=64, description="tokens a batch, padding included")
    max_tokens: int = Field(256, ge=16, description="longer texts are cut here, and counted as truncated")


class EndpointConfig(_Model):
    """An OpenAI-compatible chat endpoint, asked from the executors; see docs/annotate.md."""

    base_url: str = Field(description="POST goes to {base_url}/chat/completions")
    model: str
    api_key_env: str | None = Field(None, description="environment variable of the executors that holds the key")
    auth_header: str = Field("Authorization", description="header of the key; with another name it goes out bare")
    max_output_tokens: int = Field(256, ge=1)
    max_chars: int = Field(24_000, ge=200, description="of longer rows the middle is left out, flagged truncated")
    timeout: float = Field(60.0, gt=0, description="seconds without a byte from the server")
    concurrency: int = Field(8, ge=1, le=256, description="requests at a time in one task")
    max_tasks: int = Field(16, ge=1, description="tasks that ask at a time")
    requests_per_second: float | None = Field(None, gt=0, description="by all tasks together")
    max_tries: int = Field(6, ge=1, le=20, description="tries a row in one run")
    max_wait: float = Field(30.0, ge=0, description="longest pause in seconds between two tries")
    breaker: int = Field(10, ge=1, description="a task stops asking when so many rows in a row got no answer")
    body: dict[str, Any] = Field(default_factory=dict, description="further keys of the request; null leaves one out")

    @model_validator(mode="after")
    def _plain_url(self) -> EndpointConfig:
        parts = urllib.parse.urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("base_url is an http or https address, for example http://localhost:8000/v1")
        if parts.username or parts.password:
            raise ValueError("base_url carries a name or password; name a variable with the key in api_key_env")
        return self


class EndpointTagger(EndpointConfig):
    """Labels by a language model behind an endpoint."""

    kind: Literal["endpoint"] = "endpoint"
    top: int = Field(6, ge=1, le=64, description="at most this many labels a row")
    vocabulary: str | None = Field(None, description="builtin or a JSON list, to choose from; default: free labels")


class DistilledTagger(_Model):
    """As `embedding`, by static token vectors that are distilled from the model once: for CPUs and very large pools."""

    kind: Literal["distilled"] = "distilled"
    model: str = DEFAULT_MODEL
    vocabulary: str = Field("builtin", description="builtin, or a JSON list of labels, one path")
    top: int = Field(6, ge=1, le=64, description="at most this many labels a row")
    floor: float = Field(0.1, ge=-1, le=1, description="least cosine similarity of a label")
    margin: float = Field(0.09, ge=0, le=2, description="labels further than this below the best one are left out")
    max_tokens: int = Field(256, ge=16, description="longer texts are cut here, and counted as truncated")
    cache_dir: str | None = Field(None, description="folder of distilled models; default: the user's cache folder")


class LanguageModelConfig(_Model):
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


class ColumnScorer(_Model):
    """Scores that the pool brought."""

    kind: Literal["column"] = "column"


class HeuristicScorer(_Model):
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


Part = Annotated[HeuristicScorer | DeitaScorer | IfdScorer | RewardScorer, Field(discriminator="kind")]


class CombineScorer(_Model):
    """Quality by one scorer, complexity by another."""

    kind: Literal["combine"] = "combine"
    quality: Part = Field(description="a scorer: its quality counts, else its score")
    complexity: Part = Field(description="a scorer: its complexity counts, else its score")


Scorer = Annotated[
    ColumnScorer | HeuristicScorer | DeitaScorer | IfdScorer | RewardScorer | CombineScorer | EndpointScorer,
    Field(discriminator="kind"),
]

ScoreColumn = Literal["quality", "complexity", "score", "given.quality", "given.complexity", "given.score", "given.ifd"]


class ScoreConfig(_Model):
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


class AnnotateConfig(_Model):
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


class AssociationConfig(_Model):
    """When two labels that rows carry together are one."""

    support: float = Field(1e-4, ge=0, le=1, description="least share of the rows that carry both")
    min_count: int = Field(20, ge=1, description="least number of rows that carry both")
    confidence: float = Field(0.99, gt=0, le=1, description="share of the rows of either one that carry the other too")


class InduceConfig(_Model):
    """Labels for a pool that has none and no vocabulary either: `mig-spark induce`."""

    clusters: int = Field(100, ge=2, description="k of k-means")
    phrases: int = Field(3, ge=1, le=20, description="labels that a cluster gives to the vocabulary, at most")
    rows: int = Field(100_000, ge=2, description="at most this many different rows are embedded, drawn by content hash")
    min_rows: int = Field(3, ge=1, description="a phrase that fewer rows of the cluster contain names nothing")


class VocabularyConfig(_Model):
    """From raw tags to labels, between `annotate` and `graph`; docs/vocabulary.md."""

    enabled: bool = Field(False, description="off: labels are the tags as they are")
    fixed: bool = Field(False, description="apply the table as it is and work nothing out")
    min_count: int = Field(5, ge=1, description="tags on fewer rows are dropped")
    min_share: float = Field(1e-6, ge=0, le=1, description="the same as a share of the rows; the greater one counts")
    language: str | list[str] | None = Field("en", description="whose lemmas are looked up; null: none")
    model: str = DEFAULT_MODEL
    merge_distance: float | None = Field(0.05, ge=0, lt=1, description="cosine distance of one meaning; null: off")
    association: AssociationConfig | None = AssociationConfig()
    induce: InduceConfig = InduceConfig()

    def languages(self) -> tuple[str, ...]:
        """The languages in order."""
        return (self.language,) if isinstance(self.language, str) else tuple(self.language or ())


class GraphConfig(_Model):
    """The label graph and the propagation matrix."""

    threshold: float | None = Field(None, ge=-1, le=1, description="least cosine of an edge; default by the model")
    prop_weight: float = Field(1.0, ge=0)
    cooccurrence_weight: float = Field(0.0, ge=0)
    cooccurrence_min_count: int = Field(5, ge=1)
    normalize: Literal["receiver", "sender"] = "receiver"
    embedding_model: str = DEFAULT_MODEL
    edges_path: str | None = Field(None, description="label edges with src, dst, weight: then no model is loaded")

    def resolved_threshold(self) -> float:
        """The threshold in force: the configured one, else the one that suits the embedding model; edges that the user
        brings are all taken unless a threshold is configured."""
        if self.threshold is not None:
            return self.threshold
        if self.edges_path is not None:
            return -1.0
        return MODEL_THRESHOLDS.get(self.embedding_model.rsplit("/", 1)[-1], PAPER_THRESHOLD)


class PhiConfig(_Model):
    """The concave function: pow is phi(x) = (x + a)^b, exp has phi'(x) = alpha exp(-alpha x)."""

    kind: Literal["pow", "exp"] = "pow"
    a: float = Field(1e-6, ge=0)
    b: float = Field(0.8, gt=0, lt=1)
    alpha: float = Field(1.0, gt=0)


class QuotaLimit(_Model):
    """Least and most rows of one value of the quota column."""

    min: int = Field(0, ge=0)
    max: int | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _in_order(self) -> QuotaLimit:
        if self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


class QuotaConfig(_Model):
    """Least and most rows by the value of a column (a partition matroid, with minima)."""

    column: str = "source"
    limits: dict[str, QuotaLimit] = Field(default_factory=dict, description="by value of the column")
    each: QuotaLimit | None = Field(None, description="for every value that has no limit of its own")


class CostConfig(_Model):
    """A budget in units of a column, for example tokens; gain then counts by unit of cost."""

    column: str = Field("characters", description="a column > 0; `characters` is the length of all turns")
    budget: float = Field(gt=0)


class SelectConfig(_Model):
    """What to select and how."""

    budget: int | None = Field(1000, ge=0, description="rows; null, with a cost: as many as the cost allows")
    quotas: QuotaConfig | None = None
    cost: CostConfig | None = None
    given: str | None = Field(None, description="ids (table or file) whose information is there from the start")
    include: str | None = Field(None, description="ids (table or file) to take first")
    exclude: str | None = Field(None, description="ids (table or file) not to take")
    label_parameters: str | None = Field(None, description="JSON: label to {weight, a, b, alpha}, any of them")
    mode: Literal["exact", "threshold"] = Field("exact", description="threshold: fewer rounds, within 1 - epsilon")
    epsilon: float = Field(0.1, gt=0, lt=1, description="threshold: how far below the best a pick may be")
    phi: PhiConfig = PhiConfig()
    gain: Literal["gradient", "exact"] = "gradient"
    norm: bool = Field(False, description="divide a row's score by its number of labels")
    engine: Literal["auto", "rounds", "local"] = "auto"
    candidates: int | None = Field(None, ge=1, description="rows asked for in a round (M); default near the budget")
    block_rows: int = Field(100_000, ge=1, le=5_000_000)
    max_rounds: int = Field(200, ge=1)
    upper_bound: bool = Field(True, description="bound the best possible objective too; a few passes over the pool")

    @model_validator(mode="after")
    def _gradient_needs_a(self) -> SelectConfig:
        if self.gain == "gradient" and self.phi.kind == "pow" and self.phi.a == 0:
            raise ValueError("phi.a = 0 makes the gradient of an empty label infinite; set phi.a > 0 or gain: exact")
        return self

    @model_validator(mode="after")
    def _limits_go_together(self) -> SelectConfig:
        if self.budget is None and self.cost is None:
            raise ValueError("budget: null needs select.cost; give a number of rows, or a cost and its budget")
        limits = [*self.quotas.limits.values(), self.quotas.each] if self.quotas else []
        if self.cost and any(limit and limit.min for limit in limits):
            raise ValueError("quotas with a minimum and a cost cannot be promised together; drop one of them")
        if self.mode == "threshold" and self.engine == "local":
            raise ValueError("mode: threshold saves rounds, of which engine: local has none; use rounds or auto")
        return self

    def parameters(self) -> dict[str, dict[str, float]] | None:
        """The labels' own phi parameters.

        Raises:
            ConfigError: the file is not there or has something else in it.
        """
        return None if self.label_parameters is None else read_label_parameters(self.label_parameters)


class SparkConfig(_Model):
    """The local session. On Databricks, EMR and under spark-submit the session is taken as it is."""

    master: str | None = None
    driver_memory: str = "2g"
    jars_dir: str | None = Field(None, description="folder of jars, where no Maven repository is reached")
    jvm_options: str = Field("", description="further options of the local JVM")
    conf: dict[str, str] = Field(default_factory=dict)


class Config(_Model):
    """A whole run."""

    pool: PoolConfig
    output: OutputConfig
    annotate: AnnotateConfig = AnnotateConfig()
    vocabulary: VocabularyConfig = VocabularyConfig()
    graph: GraphConfig = GraphConfig()
    select: SelectConfig = SelectConfig()
    spark: SparkConfig = SparkConfig()
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, keys as in YAML."""
        return self.model_dump(mode="json", by_alias=True)

    def hash(self) -> str:
        """sha256 of everything that can change a result: all but the Spark session and where output goes."""
        plain = {k: v for k, v in self.to_dict().items() if k not in ("spark", "output")}
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Read a YAML config and apply `key.sub=value` overrides.

    Raises:
        ConfigError: no such file, broken YAML, unknown or ill-typed keys; the message names each one.
    """
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"no config file at {path}: write one with `mig-spark config > config.yaml`")
    try:
        plain = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(e).split())}") from None
    if plain is None:
        plain = {}
    if not isinstance(plain, dict):
        raise ConfigError(f"{path} holds a {type(plain).__name__}; a config is a mapping, see `mig-spark config`")
    for text in overrides:
        _override(plain, text)
    return build_config(plain, where=str(path))


def build_config(plain: Mapping[str, Any], *, where: str = "config") -> Config:
    """Check a mapping and build the config.

    Raises:
        ConfigError: with one clause a problem.
    """
    return build_part(Config, plain, where=where)


def build_part(kind: type[_M], plain: Mapping[str, Any], *, where: str) -> _M:
    """The same for a section of it."""
    try:
        return kind.model_validate(dict(plain))
    except ValidationError as e:
        problems = "; ".join(_explain(dict(err)) for err in e.errors())
        raise ConfigError(f"{where}: {problems} (see `mig-spark config`)") from None


_PARAMETERS = ("weight", "a", "b", "alpha")


def read_label_parameters(path: str) -> dict[str, dict[str, float]]:
    """A JSON object of labels to {weight, a, b, alpha}, all positive numbers (b below 1), any of them.

    Raises:
        ConfigError: with what is wrong.
    """
    try:
        plain = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise ConfigError(f"select.label_parameters = {path}: {e}; give a JSON object of labels to numbers") from None
    if not isinstance(plain, dict):
        raise ConfigError(f"select.label_parameters = {path}: it holds no object of labels to numbers")
    for label, own in plain.items():
        numbers = isinstance(own, dict) and all(
            k in _PARAMETERS and isinstance(v, int | float) and not isinstance(v, bool) for k, v in own.items()
        )
        if not numbers or any(v <= 0 or (k == "b" and v >= 1) for k, v in own.items()):
            raise ConfigError(
                f"select.label_parameters = {path}: {label!r} has {own!r}; weight, a, b and alpha are numbers above 0, "
                "b below 1"
            )
    return plain


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


def _override(plain: dict[str, Any], text: str) -> None:
    key, sep, value = text.partition("=")
    if not sep or not key.strip():
        raise ConfigError(f"--set {text!r}: write it as key.sub=value, for example --set select.budget=50000")
    parts = key.strip().split(".")
    here = plain
    for part in parts[:-1]:
        nxt = here.setdefault(part, {})
        if not isinstance(nxt, dict):
            raise ConfigError(f"--set {text!r}: {part!r} is a value, not a section")
        here = nxt
    try:
        here[parts[-1]] = _number(yaml.safe_load(value))
    except yaml.YAMLError:
        raise ConfigError(f"--set {text!r}: {value!r} is not a YAML value") from None


def _number(value: Any) -> Any:
    """YAML 1.1 reads `1e-6` as text; read it as the number that was meant."""
    if isinstance(value, str):
        try:
            return float(value) if "e" in value.lower() and value[:1] in "+-.0123456789" else value
        except ValueError:
            return value
    return value


# pydantic puts the kind of a tagger or scorer into the place of an error
_KINDS = frozenset(
    {"column", "embedding", "distilled", "instag", "endpoint", "heuristic", "deita", "ifd", "reward", "combine"}
)

_ROLES = frozenset({"tagger", "scorer", "quality", "complexity"})


def _explain(err: dict[str, Any]) -> str:
    whole = [str(p) for p in err["loc"]]
    loc = [p for p, before in zip(whole, ["", *whole], strict=False) if before not in _ROLES or p not in _KINDS]
    name = ".".join(loc) or "config"
    if err["type"] == "extra_forbidden":
        near = difflib.get_close_matches(loc[-1], _known_keys(), n=1)
        return f"unknown key {name!r}" + (f", did you mean {near[0]!r}?" if near else "")
    if err["type"] == "missing":
        return f"{name!r} is missing"
    given = repr(err.get("input"))
    return f"{name} = {given if len(given) < 80 else given[:77] + '...'}: {err['msg'].removeprefix('Value error, ')}"


def _known_keys() -> set[str]:
    keys: set[str] = set()

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            keys.update(node.get("properties", {}))
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(Config.model_json_schema(by_alias=True))
    return keys
