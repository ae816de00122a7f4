"""Fine-tuning a small model on a selection: from the same weights each time, on answers alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import save_causal

from mig_spark.kernels.annotation.causal_lm import load_lm, summed_loss
from mig_spark.kernels.evaluation.learner import Learner, Training, batches_of

pytestmark = pytest.mark.model

TALKS = [
    [{"role": "user", "content": "How does bread rise?"}, {"role": "assistant", "content": "Yeast makes gas."}],
    [{"role": "user", "content": "Who was emperor?"}, {"role": "assistant", "content": "A list of 3."}],
    [{"role": "user", "content": "no answer to this"}],
    [{"role": "user", "content": "Sort"}, {"role": "assistant", "content": "x"}],
]


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def learner(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Learner:
    folder = save_causal(tmp_path_factory.mktemp("model") / request.param, "llama", bos=True, template=True)
    return Learner(load_lm(folder, device="cpu", dtype=request.param, threads=1))


def test_rows_without_an_answered_question_have_no_example(learner):
    found = learner.examples(TALKS, 64)
    assert [one is None for one in found] == [False, False, True, False]
    assert all(one[0] and one[1] for one in found if one is not None)


def test_what_is_learned_is_told_better_and_every_training_begins_anew(learner):
    examples = [one for one in learner.examples(TALKS, 64) if one is not None]
    learner.forget()
    before = learner.losses(examples)
    how = Training(steps=12, batch_tokens=64, learning_rate=0.01, seed=0)
    seen = learner.train(examples, how)
    after = learner.losses(examples)
    assert seen[-1] < seen[0]
    assert after.mean() < before.mean() - 0.1
    # the same rows, order and weights give the same losses
    learner.train(examples[:1], how)
    np.testing.assert_array_equal(learner.train(examples, how), seen)
    np.testing.assert_array_equal(learner.losses(examples), after)
    learner.forget()
    np.testing.assert_array_equal(learner.losses(examples), before)


def test_the_loss_of_a_batch_is_that_of_its_answers_alone(learner):
    examples = [one for one in learner.examples(TALKS, 64) if one is not None]
    learner.forget()
    with torch.no_grad():
        batch = float(summed_loss(examples, learner.lm))
    alone = learner.losses(examples, batch_tokens=1) * [len(answer) for _, answer in examples]
    assert batch == pytest.approx(alone.sum(), rel=0.02 if learner.lm.model.dtype == torch.bfloat16 else 1e-5)


def test_small_updates_are_not_lost_in_sixteen_bits(learner):
    """Weights of 1 are 1/128 apart in bfloat16: no single step of this rate would change one, all of them do."""
    examples = [one for one in learner.examples(TALKS, 64) if one is not None]
    learner.forget()
    norms = [value for name, value in learner.lm.model.named_parameters() if "norm" in name]
    assert norms
    assert all((value == 1).all() for value in norms)
    learner.train(examples, Training(steps=40, batch_tokens=64, learning_rate=5e-4, seed=1))
    assert any((value != 1).any() for value in norms)


def test_batches_have_the_tokens_and_all_rows_in_turn():
    examples = [([1] * k, [2]) for k in range(1, 8)]
    batches = batches_of(examples, 12, seed=3)
    seen: list[int] = []
    for _ in range(20):
        batch = next(batches)
        tokens = [len(examples[k][0]) + 1 for k in batch]
        assert sum(tokens) >= 12 > sum(tokens[:-1])
        seen += batch
    for start in range(0, len(seen) - 7, 7):
        assert sorted(seen[start : start + 7]) == list(range(7))
