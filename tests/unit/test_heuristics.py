from __future__ import annotations

import re
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mig_spark.kernels.annotation import heuristics
from mig_spark.kernels.annotation.heuristics import FLAGS, information, score_messages, score_rows

from oracles.chinese import BAD, records


def row(asked: str | None, answered: str | None) -> list[dict[str, str | None]]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]


QUESTION = {
    "en": "Why does bread need time to rise, and what changes if I let it rise in the fridge overnight?",
    "zh": "面包为什么需要时间发酵？如果我把面团放在冰箱里过夜发酵，会有什么不同？",
}
GOOD = {
    "en": (
        "Bread rises because yeast eats the sugars in the dough and gives off carbon dioxide. The gluten network traps "
        "that gas, so the dough grows.\n\nA night in the fridge changes three things:\n\n"
        "1. Flavour: at 4 °C yeast slows down far more than the bacteria do, so more acids build up.\n"
        "2. Structure: the long rest lets flour take up water fully, which makes the crumb more open.\n"
        "3. Timing: you can bake when it suits you, within about 8 to 24 hours.\n\n"
        "Let the dough warm up for an hour before baking. If it smells of alcohol, it has gone too far."
    ),
    "zh": (
        "面包发酵是因为酵母会分解面团里的糖分并放出二氧化碳，面筋网络把气体留住，面团就会膨胀。\n\n"
        "放在冰箱里过夜会带来三个变化：\n\n"
        "1. 风味：低温下酵母变慢，而细菌继续产生有机酸，味道更丰富。\n"
        "2. 结构：面粉充分吸水，组织更加松软、气孔更大。\n"
        "3. 时间：可以在八到二十四小时之内任选时间烘烤。\n\n"
        "烘烤之前先回温一小时。如果闻到明显的酒味，说明发酵过头了。"
    ),
}
SHORT = {
    "en": "Yeast needs time to make gas; in the fridge it works more slowly and the bread tastes better.",
    "zh": "酵母需要时间产生气体；在冰箱里发酵得更慢，味道更好。",
}
REFUSAL = {"en": "I'm sorry, but I can't help with that.", "zh": "抱歉，我无法回答这个问题。"}
REPETITIVE = {"en": "Bread rises because of yeast. " * 30, "zh": "面包发酵是因为酵母。" * 30}


def quality(asked: str, answered: str) -> float:
    return score_messages(row(asked, answered))[0]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_answers_with_defects_score_lower_in_any_script(language: str) -> None:
    sound = [quality(QUESTION[language], answers[language]) for answers in (GOOD, SHORT)]
    assert min(sound) > 5.9
    for answers in (REFUSAL, REPETITIVE):
        assert quality(QUESTION[language], answers[language]) < 3


def test_scripts_are_treated_alike() -> None:
    # the same content, six times fewer characters: the scores are to stay close
    assert abs(quality(QUESTION["en"], GOOD["en"]) - quality(QUESTION["zh"], GOOD["zh"])) < 0.1
    en, zh = (score_messages(row(QUESTION[k], GOOD[k]))[1] for k in ("en", "zh"))
    assert abs(en - zh) < 0.8


@given(st.integers(1, 6), st.integers(0, 5))
def test_a_longer_answer_is_no_better(many: int, first: int) -> None:
    sentences = GOOD["en"].replace("\n", " ").split(". ")
    told = ". ".join((sentences * 2)[first : first + many]).rstrip(".:") + "."
    assert quality(QUESTION["en"], told) == pytest.approx(quality(QUESTION["en"], GOOD["en"]), abs=0.05)


def test_the_formula_of_a_plain_answer() -> None:
    asked = 'Which 2 rivers flow through the old town of "Ulm"?'
    answered = "2 rivers flow through the old town of Ulm: Danube, Iller."
    told, wanted = information(answered), information(asked)
    assert told == len(zlib.compress(answered.encode(), 1)) - 8

    new = (information(asked + "\n" + answered) - wanted) / told
    assert new < 0.5, "some of this answer repeats the request"
    q, c, flags = score_messages(row(asked, answered))
    assert q == pytest.approx(1 + 5 * (0.4 + 0.6 * new / 0.5))
    # a digit and a quotation, one turn
    assert c == pytest.approx(1 + 5 * 0.70 * 2 / 4)
    assert flags == []


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I cannot provide that information.",
        "As an AI language model, I do not have feelings.",
        "I am unable to help with this request.",
        "对不起，我不能帮助您完成这个请求。",
        "作为一个人工智能，我没有个人经历。",
        "申し訳ありませんが、そのご質問にはお答えできません。",
        "죄송합니다. 그 요청은 도와드릴 수 없습니다.",
        "Lo siento, pero no puedo ayudarte con eso.",
        "Je suis désolé, mais je ne peux pas répondre à cette question.",
        "Desculpe, mas não posso ajudar com isso.",
        "Mi dispiace, ma non posso aiutarti.",
        "Es tut mir leid, aber ich kann dir dabei nicht helfen.",
        "К сожалению, я не могу ответить на этот вопрос.",
        "Przykro mi, ale nie mogę w tym pomóc.",
        "عذرًا، لا يمكنني المساعدة في ذلك.",
        "Xin lỗi, tôi không thể giúp việc này.",
        "Maaf, saya tidak dapat membantu dengan itu.",
    ],
)
def test_refusals_in_many_languages(text: str) -> None:
    assert "refusal" in score_messages(row("Tell me how it works.", text))[2]


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry to hear that you are ill. Rest, drink water, and call a doctor if the fever lasts.",
        "You cannot divide by zero, because no number times zero gives one.",
        "他说他不能来，因为火车晚点了。",
        "No puedo es la forma negativa de 'puedo'.",
        "Ich kann nicht schwimmen heißt auf Englisch: I cannot swim.",
    ],
)
def test_helpful_answers_are_no_refusals(text: str) -> None:
    assert "refusal" not in score_messages(row("Tell me how it works.", text))[2]


@pytest.mark.parametrize(
    ("answered", "flag"),
    [
        ("", "no_answer"),
        (None, "no_answer"),
        ("...", "no_answer"),
        (" – ", "no_answer"),
        ("ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha", "repetitive"),
        ("The first step is to boil water. The second step is to add salt. Then you take the pasta and", "cut_off"),
        ("Use this:\n```python\nprint(1)\n", "cut_off"),
        (QUESTION["en"], "echo"),
        ("The caf\ufffd is \ufffdpen till \ufffd o'clock \ufffd\ufffd", "garbled"),
    ],
)
def test_flags_name_what_is_wrong(answered: str | None, flag: str) -> None:
    q, _, flags = score_messages(row(QUESTION["en"], answered))
    assert flag in flags
    assert q < quality(QUESTION["en"], SHORT["en"])


def test_where_a_long_answer_is_cut_to_be_scored_is_not_its_end() -> None:
    words = " ".join(f"Loaf {k} takes {k * 7 % 113} minutes and {k * k % 89} grams of flour." for k in range(900))
    assert len(words) > heuristics.MAX_CHARS + 5_000
    at = heuristics.MAX_CHARS
    # the cut is inside a word and inside a block of code
    listing = f"{words[: at - 20]}\n```python\n{words[at:]}\n```\nThat is all."
    for whole in (words, "x" * (words[:at][-1].isspace()) + words, listing):
        assert "cut_off" not in score_messages(row(QUESTION["en"], whole))[2]
    for broken in (words.rstrip(".") + " and then the", listing.replace("```\nThat is all.", "")):
        assert "cut_off" in score_messages(row(QUESTION["en"], broken))[2]
    # two messages in a row are one text, and it is all of it that is cut
    twice = [*row(QUESTION["en"], words), {"role": "assistant", "content": "And the last"}]
    assert "cut_off" in score_messages(twice)[2]


def test_complexity_rises_with_demands_and_turns() -> None:
    plain = score_messages(row("Name a river.", SHORT["en"]))[1]
    demanding = score_messages(
        row(
            "Solve 3x + 5 = 20.\n\n1. Show each step.\n2. Check it in Python: `assert f(5)`.\n\nQuote the rule.",
            SHORT["en"],
        )
    )[1]
    talk = [m for k in range(4) for m in row(f"And the river number {k}?", SHORT["en"])]
    assert demanding > plain + 0.5
    assert score_messages(talk)[1] > plain + 0.4


def test_roles_in_a_row_are_one_turn_and_others_are_not_graded() -> None:
    plain = [*row("Name a river, please.", GOOD["en"])]
    around = [
        {"role": "system", "content": "You are terse."},
        {"role": "user", "content": "Name a river,"},
        {"role": "tool", "content": "lookup done"},
        {"role": "assistant", "content": GOOD["en"]},
    ]
    assert score_messages([around[1], around[3]]) == score_messages(around)
    split = [plain[0], {"role": "assistant", "content": "One."}, {"role": "assistant", "content": "Two."}]
    assert score_messages(split) == score_messages(row("Name a river, please.", "One.\nTwo."))


message = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["system", "user", "assistant", "tool", "function_call"]),
        "content": st.one_of(st.none(), st.text(max_size=300), st.sampled_from([*GOOD.values(), *REPETITIVE.values()])),
    }
)


@given(st.lists(st.one_of(st.none(), st.lists(message, max_size=6)), max_size=4))
def test_any_row_gets_scores_in_range(rows: list[list[dict[str, str | None]] | None]) -> None:
    q, c, flags = score_rows(rows)
    assert q.shape == c.shape == (len(rows),)
    assert ((q >= 1) & (q <= 6) & (c >= 1) & (c <= 6)).all()
    assert all(set(f) <= set(FLAGS) for f in flags)


@given(st.text(min_size=20, max_size=200).filter(lambda t: len(t.strip()) >= 20))
def test_saying_it_again_and_again_does_not_help(text: str) -> None:
    assert quality("Tell me.", (text + "\n") * 60) < 2.5


def test_a_chinese_list_is_a_list() -> None:
    points = ("先把面和好，醒半个小时。", "再擀成圆片，包上馅。", "最后下锅，煮三次开。")
    plain = "\n".join(points)
    for marks in (("一、", "二、", "三、"), ("（一）", "（二）", "（三）"), ("第一，", "第二，", "第三，")):
        listed = "\n".join(mark + point for mark, point in zip(marks, points, strict=True))
        # a point of a list may end as it likes
        assert "cut_off" in score_messages(row("怎么包饺子？", plain + "好了，"))[2]
        assert "cut_off" not in score_messages(row("怎么包饺子？", listed + "好了，"))[2]
    # a number inside a sentence marks nothing
    prose = "\n".join(("一个人包饺子。", "二十分钟就好。", "三个人更快。"))
    assert not heuristics._MARKED_LINE.search(prose)


@pytest.mark.parametrize("flag", list(BAD))
def test_bad_chinese_answers_are_flagged_and_good_ones_are_not(flag: str) -> None:
    quality, _, flags = score_messages(row(*BAD[flag]))
    assert flags == [flag]
    good = [score_messages(record["messages"]) for record in records()]
    assert quality < sum(q for q, _, _ in good) / len(good) - 0.1
    assert not any(flags for _, _, flags in good)


@pytest.mark.parametrize(
    ("asked", "answered", "echo"),
    [
        ("hi", "hi", True),
        ("Hi", "hi!", True),
        ("你好", "你好。", True),
        ("hi", "hello", False),
        ("What is 5 - 10?", "-5", False),
        ("-5", "5", False),
        ("Is it true or false?", "true", False),
        ("", "hi", False),
        ("?", "!", True),
    ],
)
def test_a_short_answer_that_is_the_request_is_an_echo(asked: str, answered: str, echo: bool) -> None:
    quality, _, flags = score_messages(row(asked, answered))
    assert ("echo" in flags) == echo
    assert quality == pytest.approx(3.0 if echo else 6.0)


@pytest.mark.parametrize(("words", "phrase"), heuristics._REFUSALS)
@given(data=st.data())
def test_what_declines_has_a_word_that_is_looked_for_first(data: st.DataObject, words: str, phrase: str) -> None:
    # a space in place of each edge of a word, which counts as a character between two words: Hypothesis finds edges by
    # trial alone, and gives up on three in a row
    spaced = re.sub(r"\.\{0,(\d+)\}", lambda m: f".{{0,{int(m[1]) - 2}}}", phrase.replace(r"\b", " "))
    text = data.draw(st.from_regex(spaced))
    assert re.search(phrase, text)
    assert any(word in text for word in words.split("|"))
    assert heuristics._refuses(text)


@given(st.lists(st.sampled_from([*heuristics._REFUSAL_WORDS, "i ", " help", "不能", "no puedo", "x", " "]), max_size=8))
def test_looking_for_words_first_changes_nothing(parts: list[str]) -> None:
    text = "".join(parts)
    assert heuristics._refuses(text) is (heuristics._REFUSAL.search(text) is not None)
