"""What a small language model learns from a set of rows: its losses on answers that were kept back, after fine-tuning
it on each set from the same weights, for the same number of steps and of tokens.

torch is imported when a model is trained, never before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mig_spark.kernels.annotation import causal_lm
from mig_spark.kernels.annotation.causal_lm import Ids, LanguageModel
from mig_spark.kernels.annotation.lm_scores import context_of, pairs_of
from mig_spark.kernels.annotation.models import quiet, token_batches

F64: TypeAlias = npt.NDArray[np.float64]
#: Token ids of what comes before an answer, and of the answer.
Example: TypeAlias = tuple[Ids, Ids]

#: Share of the steps over which the learning rate rises from 0; over the rest it falls back to 0, in straight lines.
_WARM_UP = 0.1
_CLIP = 1.0


@dataclass(frozen=True)
class Training:
    """How a model is fine-tuned.

    Attributes:
        steps: updates of the weights.
        batch_tokens: tokens of an update, questions included; rows are taken until there are so many.
        learning_rate: of AdamW, at its highest.
        seed: of the order of the rows.
    """

    steps: int
    batch_tokens: int
    learning_rate: float
    seed: int = 0


class Learner:
    """A causal language model that is trained again and again from the weights that it was loaded with.

    Args:
        lm: from `causal_lm.load_lm`; its weights are changed by `train`, in place. With weights of 16 bits, updates are
            made to a copy of them in 32 (Micikevicius et al. 2018, arXiv 1710.03740): small ones would be lost.
    """

    def __init__(self, lm: LanguageModel) -> None:
        self.lm = lm
        self._start = [value.detach().float().clone() for value in lm.model.parameters()]

    def examples(self, talks: Sequence[Sequence[Mapping[str, Any]]], max_tokens: int) -> list[Example | None]:
        """Each row's last answer and what comes before it; None for a row without an answered question.

        Args:
            talks: n lists of messages.
            max_tokens: of a row; longer ones are cut, see `lm_scores.context_of`.
        """
        found: list[Example | None] = []
        for messages in talks:
            pairs = pairs_of(messages)
            context, answer, _ = context_of(pairs, self.lm, True, max_tokens) if pairs else ([], [], False)
            # a token has a loss where another one stands before it
            if not context:
                context, answer = answer[:1], answer[1:]
            found.append((context, answer) if context and answer else None)
        return found

    def forget(self) -> None:
        """Go back to the weights that the model was loaded with."""
        self._take(self._start)

    def _take(self, weights: Sequence[Any]) -> None:
        import torch

        with torch.no_grad():
            for parameter, value in zip(self.lm.model.parameters(), weights, strict=True):
                parameter.copy_(value)

    def train(self, examples: Sequence[Example], how: Training) -> F64:
        """Fine-tune on the answers of some rows, from the weights that the model was loaded with: AdamW (Loshchilov and
        Hutter 2019, arXiv 1711.05101), loss on the tokens of answers alone, each token the same weight in an update.

        Args:
            examples: at least one; gone through in a new order as often as the steps ask for.
            how: steps, tokens and rate.

        Returns:
            float64 (steps,): the loss of each update in nats a token, before it.
        """
        import torch

        self.forget()
        model = self.lm.model
        weights = [value.clone().requires_grad_() for value in self._start]
        updates = torch.optim.AdamW(weights, lr=how.learning_rate, weight_decay=0.0)
        warm = max(1, round(_WARM_UP * how.steps))
        batches = batches_of(examples, how.batch_tokens, how.seed)
        losses = np.empty(how.steps)
        model.train()
        with quiet():
            for step in range(how.steps):
                losses[step] = self._gradients([examples[k] for k in next(batches)], how.batch_tokens)
                for weight, parameter in zip(weights, model.parameters(), strict=True):
                    weight.grad, parameter.grad = parameter.grad.float(), None
                torch.nn.utils.clip_grad_norm_(weights, _CLIP)
                for group in updates.param_groups:
                    reached = min((step + 1) / warm, (how.steps - step) / max(1, how.steps - warm), 1.0)
                    group["lr"] = how.learning_rate * reached
                updates.step()
                self._take(weights)
        model.eval()
        return losses

    def losses(self, examples: Sequence[Example], *, batch_tokens: int = 4096) -> F64:
        """The loss on each answer as the model is now: float64 (n,), nats a token."""
        summed = causal_lm.answer_losses(
            [context for context, _ in examples], [answer for _, answer in examples], self.lm, batch_tokens=batch_tokens
        )
        return np.asarray(summed / np.array([len(answer) for _, answer in examples]))

    def _gradients(self, batch: list[Example], batch_tokens: int) -> float:
        """Accumulate the gradients of a batch's loss in the model's parameters.

        Args:
            batch: examples of one update.
            batch_tokens: tokens that go through the model at a time, padding included.

        Returns:
            That loss: the mean over all tokens of the batch's answers, in nats.
        """
        lengths = np.array([len(context) + len(answer) for context, answer in batch], dtype=np.int64)
        answered = sum(len(answer) for _, answer in batch)
        whole = 0.0
        for rows in token_batches(lengths, batch_tokens):
            loss = causal_lm.summed_loss([batch[r] for r in rows], self.lm) / answered
            loss.backward()
            whole += float(loss.detach())
        return whole


def batches_of(examples: Sequence[Example], batch_tokens: int, seed: int) -> Iterator[list[int]]:
    """Without end, places of examples that have `batch_tokens` tokens or just more: all of them in a new order each
    time round.

    >>> batches = batches_of([([1], [2]), ([1, 2, 3], [4])], 4, seed=0)
    >>> [sorted(next(batches)) for _ in range(2)]
    [[0, 1], [0, 1]]
    """
    rng, batch, tokens = np.random.default_rng(seed), list[int](), 0
    while True:
        for k in rng.permutation(len(examples)).tolist():
            batch.append(k)
            tokens += len(examples[k][0]) + len(examples[k][1])
            if tokens >= batch_tokens:
                yield batch
                batch, tokens = [], 0
