"""Taggers and scorers that run models or rules of their own, as annotators: names, versions, kernel parameters."""

from __future__ import annotations

from typing import Any

from mig_spark.annotation.annotator import Annotator, version_of
from mig_spark.annotation.endpoint_annotators import endpoint_scorer
from mig_spark.annotation.sample_rows import sample_texts
from mig_spark.config import (
    CombineScorer,
    DeitaScorer,
    DistilledTagger,
    EndpointScorer,
    HeuristicScorer,
    IfdScorer,
    InstagTagger,
    LanguageModelConfig,
    RewardScorer,
)
from mig_spark.kernels.annotation import distilled, heuristics, instag, lm_scores
from mig_spark.kernels.annotation.annotators import SCORES, TAGS, TRUNCATED
from mig_spark.kernels.annotation.causal_lm import check_transformers
from mig_spark.kernels.annotation.embedding import TEXT_RULE, check_installed, model_identity


def distilled_tagger(config: DistilledTagger, labels: list[str], threads: int) -> Annotator:
    """The tagger `distilled` for these labels.

    Raises:
        DependencyError: the library or the model is not there.
        InputError: the sample cannot be read.
    """
    check_installed()
    identity = model_identity(config.model)
    said = {name: getattr(config, name) for name in ("top", "floor", "margin", "max_tokens")}
    sample = sample_texts(config.sample)
    fitted = {"vocabulary": labels, "sample": sample}
    version = version_of(model=identity, text=TEXT_RULE, rule=distilled.VERSION, **fitted, **said)
    parameters = {**said, **fitted, "model": config.model, "identity": identity}
    parameters |= {"cache_dir": config.cache_dir, "threads": threads}
    return Annotator(f"distilled {identity}", version, TAGS, flags=(TRUNCATED,), step=("distilled", parameters))


def instag_tagger(config: InstagTagger, threads: int) -> Annotator:
    """The tagger `instag`.

    Raises:
        DependencyError: the library or the model is not there.
    """
    check_transformers()
    identity = _identity(config.model, config)
    said = {"prompt": config.prompt or instag.PROMPT, "max_tokens": config.max_tokens}
    said |= {"max_new_tokens": config.max_new_tokens}
    version = version_of(model=identity, dtype=config.dtype, rule=instag.VERSION, **said)
    parameters = {**said, **_how(config, threads), "model": config.model, "batch_tokens": config.batch_tokens}
    flags = (instag.TRUNCATED, instag.UNPARSABLE)
    return Annotator(f"instag {identity}", version, TAGS, flags=flags, step=("instag", parameters), may_fail=True)


def model_scorer(
    config: HeuristicScorer | DeitaScorer | IfdScorer | RewardScorer | EndpointScorer | CombineScorer, threads: int
) -> Annotator:
    """The scorer that a config names.

    Raises:
        DependencyError: its library or model is not there.
    """
    if isinstance(config, HeuristicScorer):
        version = version_of(rules=heuristics.VERSION)
        return Annotator("heuristic", version, SCORES, flags=heuristics.FLAGS, step=("heuristic", {}))
    if isinstance(config, EndpointScorer):
        return endpoint_scorer(config)
    if isinstance(config, CombineScorer):
        return _combined(config, threads)
    check_transformers()
    identities = [_identity(name, config) for name in _models(config)]
    said, flags = _said(config)
    covered = {**said, "max_tokens": config.max_tokens, "dtype": config.dtype}
    version = version_of(models=identities, kind=config.kind, rule=lm_scores.VERSION, **covered)
    how = _how(config, threads)
    named = [{"name": name, **how} for name in _models(config)]
    roles = ("quality", "complexity") if isinstance(config, DeitaScorer) else ("model",)
    parameters: dict[str, Any] = {**said, **dict(zip(roles, named, strict=True))}
    parameters |= {"batch_tokens": config.batch_tokens, "max_tokens": config.max_tokens}
    name = f"{config.kind} {' '.join(dict.fromkeys(identities))}"
    return Annotator(name, version, SCORES, flags=flags, step=(config.kind, parameters), may_fail=True)


def _combined(config: CombineScorer, threads: int) -> Annotator:
    parts = {"quality": model_scorer(config.quality, threads), "complexity": model_scorer(config.complexity, threads)}
    version = version_of(kind="combine", **{role: [part.name, part.version] for role, part in parts.items()})
    name = f"combine quality: {parts['quality'].name}, complexity: {parts['complexity'].name}"
    flags = tuple(dict.fromkeys(flag for part in parts.values() for flag in part.flags))
    steps = {role: part.step for role, part in parts.items()}
    most = [part.max_tasks for part in parts.values() if part.max_tasks is not None]
    return Annotator(
        name,
        version,
        SCORES,
        flags=flags,
        step=("combine", steps),
        may_fail=any(part.may_fail for part in parts.values()),
        max_tasks=min(most, default=None),
    )


def _models(config: DeitaScorer | IfdScorer | RewardScorer) -> list[str]:
    if isinstance(config, DeitaScorer):
        return [config.quality_model, config.complexity_model]
    return [config.model]


def _said(config: DeitaScorer | IfdScorer | RewardScorer) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What can change a score beside the model, as the kernel takes it; and the kernel's flags."""
    if isinstance(config, RewardScorer):
        return {"label": config.label, "activation": config.activation}, (lm_scores.TRUNCATED,)
    if isinstance(config, IfdScorer):
        return {"chat": config.chat}, (lm_scores.TRUNCATED, lm_scores.IFD_GE_1)
    said = {
        "quality_prompt": config.quality_prompt or lm_scores.QUALITY_PROMPT,
        "complexity_prompt": config.complexity_prompt or lm_scores.COMPLEXITY_PROMPT,
        "aggregate": config.aggregate,
        "chat": config.chat,
    }
    return said, (lm_scores.TRUNCATED,)


def _identity(name: str, config: LanguageModelConfig) -> str:
    identity = model_identity(name)
    return f"{identity}@{config.revision}" if config.revision and "@" not in identity else identity


def _how(config: LanguageModelConfig, threads: int) -> dict[str, Any]:
    """How `causal_lm.load_lm` is to load a model."""
    return {"revision": config.revision, "device": config.device, "dtype": config.dtype, "threads": threads}
