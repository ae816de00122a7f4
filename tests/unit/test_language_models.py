"""Generation, losses, grades and rewards against brute force, one row at a time, with small random models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from tiny_models import save_causal, save_reward

from mig_spark.annotation.scorers.deita import deita_scores
from mig_spark.annotation.scorers.ifd import ifd_scores
from mig_spark.annotation.scorers.reward import reward_scores
from mig_spark.annotation.taggers.instag import instag_labels
from mig_spark.errors import AnnotationError, DependencyError
from mig_spark.kernels.annotation import causal_lm, endpoint, instag, lm_scores
from mig_spark.kernels.annotation.annotators import ARROW_TYPES, TAGS, Step, annotate_batch
from mig_spark.kernels.annotation.heuristics import MAX_CHARS
from mig_spark.kernels.annotation.models import loaded_models

pytestmark = pytest.mark.model

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
CPU = {"revision": None, "device": "cpu", "dtype": "float32", "threads": 1}
TALKS = [
    [("user", "How does bread rise?"), ("assistant", "Yeast makes gas in the dough.")],
    [("user", "Who was emperor?"), ("assistant", "Tiberius."), ("user", "And then?"), ("assistant", "A list of 3.")],
    [("system", "Be kind."), ("user", "面包 怎么 发酵?"), ("assistant", "Yeast " * 40)],
    [("user", "Sort"), ("assistant", "x")],
    [("user", "no answer to this")],
    [("assistant", "nobody asked")],
]
USABLE = [0, 1, 2, 3]


def batch(talks: list[list[tuple[str, str]]] = TALKS) -> pa.RecordBatch:
    rows = [{"messages": [{"role": role, "content": text} for role, text in talk]} for talk in talks]
    schema = pa.schema([("messages", MESSAGES), *ARROW_TYPES.items()])
    return pa.RecordBatch.from_pylist(rows, schema=schema)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("models")
    return {
        "llama": save_causal(root / "llama", "llama", bos=True, template=True),
        "gpt2": save_causal(root / "gpt2", "gpt2", pad=False),
        "short": save_causal(root / "short", "llama", positions=48),
        "reward": save_reward(root / "reward"),
        "reward-no-pad": save_reward(root / "reward-no-pad", pad=False),
        "bert": save_reward(root / "bert", "bert", classes=3),
    }


def nll(model: torch.nn.Module, context: list[int], answer: list[int]) -> list[float]:
    """Loss of every token of the answer, one forward pass, no padding."""
    ids = torch.tensor([[*context, *answer]])
    with torch.inference_mode():
        logp = torch.log_softmax(model(ids).logits[0].double(), dim=-1)
    return [-float(logp[len(context) + k - 1, token]) for k, token in enumerate(answer)]


PROMPTS = ["Write", "How does bread rise? Yeast makes gas in the dough", "A JSON list of numbers", "面包"]


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_padding_changes_no_answer(folders: dict[str, str], name: str) -> None:
    lm = causal_lm.load_lm(folders[name], **CPU)
    prompts = [causal_lm.encode(text, lm) for text in PROMPTS]
    assert len({len(ids) for ids in prompts}) > 2
    together = causal_lm.generate(prompts, lm, max_new_tokens=12, batch_tokens=10_000)
    for ids, answer in zip(prompts, together, strict=True):
        seen = list(ids)
        with torch.inference_mode():
            for _ in range(12):
                seen.append(int(lm.model(torch.tensor([seen])).logits[0, -1].argmax()))
                if seen[-1] == 1:
                    break
        assert answer == lm.tokenizer.decode(seen[len(ids) :], skip_special_tokens=True)
    assert len(set(together)) > 1
    assert causal_lm.generate(prompts, lm, max_new_tokens=12, batch_tokens=1) == together


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_batched_losses_are_those_of_single_rows(folders: dict[str, str], name: str) -> None:
    lm = causal_lm.load_lm(folders[name], **CPU)
    contexts = [causal_lm.encode(text, lm) for text in PROMPTS]
    answers = [causal_lm.piece_ids(text, lm) for text in reversed(PROMPTS)]
    expected = [sum(nll(lm.model, c, a)) for c, a in zip(contexts, answers, strict=True)]
    for batch_tokens in (1, 40, 10_000):
        found = causal_lm.answer_losses(contexts, answers, lm, batch_tokens=batch_tokens)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_grades_are_the_expected_value_over_the_six_tokens(folders: dict[str, str], name: str) -> None:
    lm = causal_lm.load_lm(folders[name], **CPU)
    found, cut = lm_scores.expected_grades(PROMPTS, lm, chat=True, batch_tokens=10_000, max_tokens=512)
    expected = []
    for text in PROMPTS:
        if name == "llama":
            shown, grades = f"<s>user\n{text}</s><s>assistant\n", "123456"
        else:
            shown, grades = text, [f" {k}" for k in range(1, 7)]
        ways = [lm.tokenizer(shown + grade, add_special_tokens=False)["input_ids"] for grade in grades]
        with torch.inference_mode():
            logits = lm.model(torch.tensor([ways[0][:-1]])).logits[0, -1].double()
        p = torch.softmax(logits[[ids[-1] for ids in ways]], dim=0)
        expected.append(float((p * torch.arange(1, 7)).sum()))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert not cut.any()
    assert found.std() > 0.01


def test_deita_scores_pairs_and_puts_them_together(folders: dict[str, str]) -> None:
    which = {"name": folders["llama"], **CPU}
    options = {
        "quality": which,
        "complexity": which,
        "chat": False,
        "batch_tokens": 2000,
        "max_tokens": 512,
        "quality_prompt": "{instruction} {response} Grade:",
        "complexity_prompt": "{instruction} Grade:",
    }
    mean = deita_scores(batch(), aggregate="mean", **options)
    total = deita_scores(batch(), aggregate="sum", **options)
    lm = causal_lm.load_lm(**which)

    def grade(text: str) -> float:
        return float(lm_scores.expected_grades([text], lm, chat=False, batch_tokens=1, max_tokens=512)[0][0])

    pairs = [("Who was emperor?", "Tiberius."), ("And then?", "A list of 3.")]
    q = [grade(f"{asked} {answered} Grade:") for asked, answered in pairs]
    c = [grade(f"{asked} Grade:") for asked, _ in pairs]
    assert mean["quality"][1].as_py() == pytest.approx(np.mean(q), rel=1e-5)
    assert mean["complexity"][1].as_py() == pytest.approx(np.mean(c), rel=1e-5)
    assert mean["score"][1].as_py() == pytest.approx((q[0] * c[0] + q[1] * c[1]) / 2, rel=1e-5)
    assert total["score"][1].as_py() == pytest.approx(q[0] * c[0] + q[1] * c[1], rel=1e-5)
    assert mean["score"].to_pylist()[4:] == [None, None]
    assert mean["score_error"].to_pylist() == [None] * 4 + [lm_scores.NO_PAIR] * 2
    assert total["score"].to_pylist()[4:] == [None, None]


def test_long_prompts_lose_their_middle_and_say_so(folders: dict[str, str]) -> None:
    which = {"name": folders["short"], **CPU}
    made = deita_scores(
        batch(), quality=which, complexity=which, quality_prompt="{instruction} {response} Grade:",
        complexity_prompt="{instruction} Grade:", aggregate="mean", chat=True, batch_tokens=100, max_tokens=4096,
    )  # fmt: skip
    assert made["score_flags"].to_pylist()[:4] == [[], [], ["score_truncated"], []]
    assert causal_lm.cut_middle(list(range(10)), 8) == ([0, 1, 2, 3, 4, 5, 8, 9], True)
    assert causal_lm.cut_middle(list(range(8)), 8) == (list(range(8)), False)


def test_a_message_that_is_cut_before_the_model_sees_it_says_so() -> None:
    long = "word " * (MAX_CHARS // 5 + 1)
    said = [("user", "Sort"), ("assistant", long)], [("user", "Sort"), ("assistant", long[:MAX_CHARS])]
    # of a turn without an answer nothing is read
    talks, rows = lm_scores.read_talks(batch([*said, [*said[1], ("user", long)], [("user", long)]]))
    assert rows.flags == [["score_truncated"], [], [], []]
    assert [max((len(answer) for _, answer in pairs), default=0) for pairs in talks] == [MAX_CHARS, 19_999, 19_999, 0]
    assert rows.errors == [None, None, None, lm_scores.NO_PAIR]


def test_ifd_is_the_ratio_of_the_losses(folders: dict[str, str]) -> None:
    made = ifd_scores(
        batch(), model={"name": folders["llama"], **CPU}, chat=True, batch_tokens=3000, max_tokens=512
    )  # fmt: skip
    lm = causal_lm.load_lm(folders["llama"], **CPU)
    assert lm.start == [0]
    ratios = []
    for number in USABLE:
        shown, given, free = "", 0.0, 0.0
        for role, text in TALKS[number]:
            if role == "assistant":
                context = lm.tokenizer(f"{shown}<s>assistant\n", add_special_tokens=False)["input_ids"]
                answer = lm.tokenizer(text.strip(), add_special_tokens=False)["input_ids"]
                given += sum(nll(lm.model, context, answer))
                free += sum(nll(lm.model, [0], answer))
            if role != "system":
                shown += f"<s>{role}\n{text}</s>"
        ratios.append(given / free)
    expected = [ratio if ratio < 1 else 0.0 for ratio in ratios]
    np.testing.assert_allclose(made["score"].to_pylist()[:4], expected, rtol=1e-4)
    assert made["score_flags"].to_pylist()[:4] == [["ifd_ge_1"] if ratio >= 1 else [] for ratio in ratios]
    assert min(ratios) < 1 < max(ratios)
    assert made["score_error"].to_pylist()[4:] == [lm_scores.NO_PAIR] * 2
    assert made["quality"].null_count == len(TALKS)


def test_ifd_without_a_first_token_leaves_the_first_token_out_of_both(folders: dict[str, str]) -> None:
    lm = causal_lm.load_lm(folders["gpt2"], **CPU)
    assert lm.start == []
    made = ifd_scores(batch(), model={"name": folders["gpt2"], **CPU}, chat=True, batch_tokens=3000, max_tokens=512)
    question, answer = ([*lm.tokenizer(text)["input_ids"]] for text in ("How does bread rise?\n", TALKS[0][1][1]))
    ratio = sum(nll(lm.model, [*question, answer[0]], answer[1:])) / sum(nll(lm.model, answer[:1], answer[1:]))
    assert made["complexity"][0].as_py() == pytest.approx(ratio if ratio < 1 else 0.0, rel=1e-4)
    # one token has no loss of its own
    assert made["score_error"][3].as_py() == lm_scores.TOO_SHORT


def test_ifd_keeps_within_what_the_model_sees(folders: dict[str, str]) -> None:
    made = ifd_scores(batch(), model={"name": folders["short"], **CPU}, chat=True, batch_tokens=3000, max_tokens=9999)
    assert made["score_flags"].to_pylist()[2][0] == "score_truncated"
    assert made["score"].null_count == len(TALKS) - len(USABLE) + 1


@pytest.mark.parametrize("name", ["reward", "reward-no-pad"])
def test_rewards_are_those_of_single_rows(folders: dict[str, str], name: str) -> None:
    made = reward_scores(
        batch(), model={"name": folders[name], **CPU}, label=0, activation="sigmoid", batch_tokens=5000, max_tokens=512
    )
    lm = causal_lm.load_lm(folders[name], "reward", **CPU)
    expected = []
    for number in USABLE:
        shown = "".join(f"<s>{r}\n{t.strip()}</s>" for r, t in TALKS[number] if r != "system")
        ids = torch.tensor([lm.tokenizer(shown, add_special_tokens=False)["input_ids"]])
        with torch.inference_mode():
            expected.append(float(torch.sigmoid(lm.model(ids).logits[0, 0].double())))
    np.testing.assert_allclose(made["score"].to_pylist()[:4], expected, rtol=1e-4)
    assert np.std(expected) > 1e-3
    assert made["quality"].equals(made["score"])
    assert made["score_error"].to_pylist()[4:] == [lm_scores.NO_PAIR] * 2


def test_a_classifier_of_pairs_gives_the_probability_of_its_good_class(folders: dict[str, str]) -> None:
    made = reward_scores(
        batch(), model={"name": folders["bert"], **CPU}, label=2, activation="sigmoid", batch_tokens=5000, max_tokens=64
    )
    lm = causal_lm.load_lm(folders["bert"], "reward", **CPU)
    with torch.inference_mode():
        seen = lm.tokenizer(TALKS[0][0][1], TALKS[0][1][1], return_tensors="pt", return_token_type_ids=True)
        assert seen["token_type_ids"].max() == 1
        expected = float(torch.softmax(lm.model(**seen).logits[0].double(), dim=0)[2])
    assert made["score"][0].as_py() == pytest.approx(expected, rel=1e-4)


def test_raw_rewards_below_zero_have_no_score() -> None:
    assert lm_scores.reward_value(np.array([[-2.0], [3.0]]), 0, "none").tolist() == [-2.0, 3.0]
    extreme = lm_scores.reward_value(np.array([[-1e4], [1e4], [0.0]]), 0, "sigmoid")
    assert extreme.tolist() == [0.0, 1.0, 0.5]


def test_expected_value_does_not_overflow() -> None:
    logits = np.array([[1e4, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1e4], [-1e4] * 6])
    np.testing.assert_allclose(lm_scores.expected_value(logits), [1.0, 6.0, 3.5])


def instag_options(folder: str) -> dict[str, object]:
    return {
        "model": folder,
        "prompt": instag.PROMPT,
        "batch_tokens": 4000,
        "max_tokens": 256,
        "max_new_tokens": 8,
        **CPU,
    }


def test_babble_gives_no_tag_and_is_counted(folders: dict[str, str]) -> None:
    loads = loaded_models()
    before = endpoint.SPENT.unparsable
    made, cost = annotate_batch(batch(), [Step(instag_labels, TAGS, instag_options(folders["llama"]))])
    # in the last row nobody asks for anything
    asked = len(TALKS) - 1
    assert made["labels"].to_pylist() == [None] * asked + [[]]
    assert made["tag_flags"].to_pylist()[asked:] == [[]]
    assert all("unparsable" in flags for flags in made["tag_flags"].to_pylist()[:asked])
    assert all(why.startswith(endpoint.UNPARSABLE) for why in made["tag_error"].to_pylist()[:asked])
    assert (cost.unparsable, endpoint.SPENT.unparsable - before) == (asked, asked)
    assert loaded_models() <= loads + 1
    annotate_batch(batch(), [Step(instag_labels, TAGS, instag_options(folders["llama"]))])
    assert loaded_models() <= loads + 1


def test_readable_answers_become_tags(folders: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model cannot write JSON, so what it says is put in its mouth; all else is the real thing."""
    said = [json.dumps([{"tag": "baking"}]), "sorry", '["x", "y"', "[]", '["z"]']
    asked: list[str] = []

    def answers(prompts: list[list[int]], lm: causal_lm.LanguageModel, **_: int) -> list[str]:
        asked.extend(lm.tokenizer.decode(ids) for ids in prompts)
        return said

    monkeypatch.setattr(causal_lm, "generate", answers)
    made, _ = annotate_batch(batch(), [Step(instag_labels, TAGS, instag_options(folders["llama"]))])
    assert made["labels"].to_pylist() == [["baking"], None, ["x", "y"], [], ["z"], []]
    assert [why is None for why in made["tag_error"].to_pylist()] == [True, False, True, True, True, True]
    # a row without a request is not asked about
    assert len(asked) == len(TALKS) - 1
    monkeypatch.undo()
    made, _ = annotate_batch(batch(TALKS[-1:]), [Step(instag_labels, TAGS, instag_options(folders["llama"]))])
    assert made["labels"].to_pylist() == [[]]
    assert "How does bread rise?" in asked[0]
    assert asked[0].startswith("<s>user\n")
    assert asked[0].endswith("<s>assistant\n")


def test_a_model_that_is_saved_over_another_is_loaded_anew(tmp_path: Path) -> None:
    folder = save_causal(tmp_path / "m")
    first = causal_lm.load_lm(folder, **CPU)
    assert causal_lm.load_lm(folder, **CPU) is first
    first.model.lm_head.weight.data *= -1
    first.model.save_pretrained(folder)
    second = causal_lm.load_lm(folder, **CPU)
    assert second is not first
    assert torch.equal(second.model.lm_head.weight, first.model.lm_head.weight)
    assert causal_lm.load_lm(folder, **CPU) is second


def test_a_model_that_cannot_be_loaded_is_named(tmp_path: Path, folders: dict[str, str]) -> None:
    with pytest.raises(DependencyError, match="/no/such/model"):
        causal_lm.load_lm("/no/such/model")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DependencyError, match="cannot load the causal model"):
        causal_lm.load_lm(str(tmp_path), device="cpu")
    lm = causal_lm.load_lm(folders["bert"], "reward", **CPU)
    with pytest.raises(AnnotationError, match="grades 1 to 6"):
        lm_scores.grade_tokens("Grade:", lm)
