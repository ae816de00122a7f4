"""The annotated pool -> evidence: selections of a sample by several strategies, measured by what none optimises."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from mig_spark.config import Config
from mig_spark.config.evaluate import TrainConfig
from mig_spark.errors import InputError
from mig_spark.evaluation.evidence import Evidence, Line, in_order, lines_of, loss_lines
from mig_spark.evaluation.sample import MESSAGES, STRATUM, Sample, draw_sample, prompts_of
from mig_spark.evaluation.strategies import RANDOM, Strategies
from mig_spark.kernels.annotation.rank_correlation import rank_correlation
from mig_spark.kernels.evaluation.measures import Floats, Trial, by_group, measure
from mig_spark.kernels.evaluation.texts import check_installed, spelling_vectors
from mig_spark.labels.label_graph import load_graph
from mig_spark.lakehouse.tables import Store
from mig_spark.masking import mask_secrets
from mig_spark.selection.label_parameters import located

logger = logging.getLogger(__name__)

_SPELLING = "the prompts' spelling"


def evaluate_pool(store: Store, config: Config) -> Evidence:
    """Compare strategies on a sample of the annotated pool. All is done in this process once the sample is here.

    Raises:
        InputError: too few rows; the label graph is not there, and a strategy reads it; or a strategy takes no row.
        ContractError: no row has the stratum's column.
        DependencyError: what compares prompts, or the model that learns, is not there.
    """
    section = config.evaluate
    if section.model is None:
        check_installed()
    learner = None if section.train is None else _Learning(section.train)
    sample = draw_sample(store, config)
    n, one_stratum = sample.pool.num_rows, len(sample.names) < 2
    # the run's own label parameters are in its table
    there = config.model_copy(update={"select": located(store, config)})
    strategies = Strategies(sample, there, lambda: load_graph(store), store.spark)
    logger.info("evaluate: %d rows, %d prompts kept back, strategies %s", n, sample.asked.num_rows,
                ", ".join(strategies.names))  # fmt: skip
    trial = _trial(sample, section.model)
    density = trial.density()
    lines, seconds = list[Line](), dict[str, float]()
    for share in section.budgets:
        budget, measured = _rows(share, n), {}
        for name in strategies.names:
            runs = strategies.runs(name, draws=section.draws, orders=section.orders)
            started = time.perf_counter()
            picked = [strategies.select(name, budget, run) for run in range(runs)]
            seconds[name] = round((time.perf_counter() - started) / runs, 3)
            if not all(len(some) for some in picked):
                raise InputError(
                    f"the strategy {name} took no row of the {n:,} that are compared on, so nothing can be measured of "
                    "it: leave it out of evaluate.strategies, or choose another select.strategy"
                )
            measured[name] = [measure(trial, some, density) for some in picked]
            logger.info("evaluate: %d rows by %s, %d times", budget, name, runs)
        lines += lines_of(share, budget, measured, random=RANDOM, own=strategies.own, asked_strata=trial.asked_strata,
                          one_stratum=one_stratum)  # fmt: skip
    training: dict[str, Any] = {}
    if learner is not None:
        found, training = learner.lines(sample, strategies)
        lines += found
    follows = rank_correlation(
        sample.pool["score"].to_numpy().astype(float), trial.lengths.astype(float)
    )  # fmt: skip
    notes = list(strategies.notes)
    if one_stratum:
        notes.append(
            f"all rows of the sample have the same {section.stratum}, so strata are not measured: name a column that "
            "tells tasks or domains apart as evaluate.stratum"
        )
    return Evidence(
        strategies.own, n, sample.asked.num_rows, sample.rows_in_all, section.stratum, len(sample.names),
        section.model or _SPELLING, follows, in_order(lines, strategies.names), seconds, training, notes,
        mask_secrets(config.to_dict())["select"],
    )  # fmt: skip


def _rows(share: float, n: int) -> int:
    return max(1, round(share * n))


def _trial(sample: Sample, model: str | None) -> Trial:
    known, asked = (prompts_of(t[MESSAGES].to_pylist()) for t in (sample.pool, sample.asked))
    if model is None:
        one, two = spelling_vectors(known, asked)
    else:
        from mig_spark.kernels.annotation.embedding import embed_texts, load_model

        loaded = load_model(model, threads=None)
        one, two = (np.asarray(embed_texts(texts, loaded, max_tokens=256)[0]) for texts in (known, asked))
    lengths = sample.pool["answer_characters"].to_numpy()
    return Trial(
        sample.strata, np.nan_to_num(lengths.astype(float)).astype(np.int64), one,
        sample.asked[STRATUM].to_numpy(), two,
    )  # fmt: skip


class _Learning:
    """The model that learns from selections; loaded before anything is drawn, so that a missing one is told at once."""

    def __init__(self, how: TrainConfig) -> None:
        from mig_spark.kernels.annotation.causal_lm import load_lm
        from mig_spark.kernels.evaluation.learner import Learner

        self._how = how
        self._learner = Learner(load_lm(how.model, device=how.device, dtype=how.dtype, threads=how.threads))

    def lines(self, sample: Sample, strategies: Strategies) -> tuple[list[Line], dict[str, Any]]:
        """Train on each strategy's selections, and measure the losses on answers that were kept back."""
        how, budget = self._how, _rows(self._how.budget, sample.pool.num_rows)
        kept, strata = self._answers(sample)
        known = self._learner.examples(sample.pool[MESSAGES].to_pylist(), how.max_tokens)
        if not kept:
            return [], {"note": "no model was trained: none of the prompts kept back has an answer"}
        self._learner.forget()
        logger.info("evaluate: a model learns from %d selections of %d rows, %d steps of %d tokens each",
                    how.runs * len(strategies.names), budget, how.steps, how.batch_tokens)  # fmt: skip
        before = float(by_group(self._learner.losses(kept), strata).mean())
        losses: dict[str, list[Floats]] = {name: [] for name in strategies.names}
        for run, name in self._turns(strategies):
            examples = [e for e in (known[k] for k in strategies.select(name, budget, run).tolist()) if e is not None]
            self._learner.forget()
            if examples:
                self._train(examples, run)
            losses[name].append(self._learner.losses(kept))
            logger.info("evaluate: trained on %d rows by %s, run %d: loss %.4f", len(examples), name, run + 1,
                        float(by_group(losses[name][-1], strata).mean()))  # fmt: skip
        found = list(loss_lines(how.budget, budget, dict(losses), random=RANDOM, own=strategies.own, strata=strata))
        told = {**how.model_dump(), "prompts": len(kept), "rows": budget, "loss_before": before}
        return found, told

    def _turns(self, strategies: Strategies) -> Iterator[tuple[int, str]]:
        return ((run, name) for run in range(self._how.runs) for name in strategies.names)

    def _train(self, examples: list[Any], run: int) -> None:
        from mig_spark.kernels.evaluation.learner import Training

        how = self._how
        self._learner.train(examples, Training(how.steps, how.batch_tokens, how.learning_rate, seed=run))

    def _answers(self, sample: Sample) -> tuple[list[Any], Any]:
        """Examples of prompts kept back, and their strata: the same number of each stratum, as far as they go."""
        found = self._learner.examples(sample.asked[MESSAGES].to_pylist(), self._how.max_tokens)
        strata = sample.asked[STRATUM].to_numpy()
        seen: dict[int, int] = {}
        turn = []
        for k in range(len(found)):
            if found[k] is not None:
                seen[int(strata[k])] = seen.get(int(strata[k]), 0) + 1
                turn.append((seen[int(strata[k])], k))
        taken = sorted(k for _, k in sorted(turn)[: self._how.prompts])
        return [found[k] for k in taken], strata[taken]
