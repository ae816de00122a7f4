"""Quality and complexity of a row by transparent rules: no model, any script. docs/heuristics.md has the formulas.

Quality is what is left after an answer's defects: no rule grows with its length, for a score that follows length takes
long answers and little else. Where a rule needs an amount of text, it is counted as information: the bytes that zlib
leaves of the UTF-8 text. That needs no words or spaces, treats one Chinese character like the few Latin letters it
stands for, and sees repetition for what it is.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

F64: TypeAlias = npt.NDArray[np.float64]
Message: TypeAlias = Mapping[str, str | None]

#: changes with any rule or number below, so that cached scores are not mixed with scores by other rules
VERSION = 6
FLAGS = ("no_answer", "refusal", "repetitive", "cut_off", "echo", "garbled")

#: characters of a text that are looked at: defects show before this, and zlib's time grows with the text
MAX_CHARS = 20_000
_MAX_TURNS = 16
_ZLIB_EMPTY = len(zlib.compress(b"", 1))

_SENTENCE_END = re.compile(r"[.!?…](?=[\s\"'”’»)\]*_]|$)|[。！？｡؟।።]")
# 1. (2) 3、 and, in Chinese and Japanese, 一、 （二） 第三，
_NUMBER = r"[(（]?\d{1,3}[.)）、．:]|[(（]?[一二三四五六七八九十]{1,3}[)）、．]|第[一二三四五六七八九十]{1,3}[，、,]"
_MARKED_LINE = re.compile(rf"^[ \t]*(?:[-*+•‣–·]\s|{_NUMBER}|#{{1,6}}\s|\|.*\||(?:```|~~~))", re.MULTILINE)
_GARBLED = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufffd\ue000-\uf8ff]|Ã[\x80-\xbf]|â€|&(?:amp|lt|gt|nbsp|quot|#\d+);"
    r"|</?(?:br|p|div|span|font)\b[^>]*>"
)
#: An answer of nothing else stands where one was to be written.
_NOTHING = re.compile(r"[\s.…。·\-–—_*~]*")
#: Bytes of information below which an answer is too short to be told from its request by what is new in it.
SHORT = 24
_AROUND = " \t\n.!?…。！？｡؟¡¿"
#: The quality of a row without an answer, the least there is.
WORST = 1.0
_DEMANDS = (
    re.compile(r"\d"),
    re.compile(r"```|[{}\[\]<>;]|\w\(\w*\)|</\w"),
    re.compile(r"[=+×÷√∑∫≤≥≠^%]|\d\s*[*/]\s*\d"),
    re.compile(r"[\"“”«»「」『』]"),
    re.compile(rf"^[ \t]*(?:[-*+•]\s|{_NUMBER})", re.MULTILINE),
)
# What an assistant opens with when it declines, phrases of our own collection, each matched in lower case; and words of
# which one is in each text that a phrase matches, for looking for a word takes a hundredth of the time.
_REFUSALS: tuple[tuple[str, str], ...] = (
    # English
    ("as a ai|as an ai|as a artificial|as an artificial", r"\bas an? (?:ai|artificial intelligence)\b"),
    (
        "sorry|apologi|afraid",
        r"\b(?:sorry|apologi[sz]e|afraid)\b.{0,30}\b(?:can(?:no|'|’)t|can not|unable|not able|won['’]t|will not|"
        r"do(?:n['’]t| not) (?:know|have))",
    ),
    (
        "cannot|can't|can’t|can not|unable to|not able to|won't|won’t|will not",
        r"\bi(?: am|['’]m)? (?:can(?:no|'|’)t|can not|unable to|not able to|won['’]t|will not) "
        r"(?:help|assist|provide|fulfil|comply|answer|do that|continue|create|generate|discuss|support)",
    ),
    ("do not know|don't know|don’t know", r"^(?:i )?(?:do not|don['’]t) know\W*$"),
    # Chinese, Japanese, Korean
    (
        "抱歉|对不起|對不起|很遗憾|很遺憾",
        r"(?:抱歉|对不起|對不起|很遗憾|很遺憾).{0,20}(?:无法|無法|不能|不会|不會|不便|没有?办法|沒有?辦法)",
    ),
    ("作为|作為", r"(?:作为|作為)(?:一个|一個|一名)?(?:人工智能|人工智慧|ai)"),
    (
        "我无法|我無法|我不能|我没|我沒",
        r"我(?:无法|無法|不能|没有?办法|沒有?辦法)(?:帮助|幫助|提供|回答|协助|協助|满足|滿足|完成)",
    ),
    (
        "申し訳|すみません|恐れ入ります",
        r"(?:申し訳|すみません|恐れ入ります).{0,40}(?:できません|できかねます|いたしかねます|お答え)",
    ),
    ("죄송|미안", r"(?:죄송|미안).{0,40}(?:없습니다|없어요|못합니다|어렵습니다)"),
    # Romance languages
    (
        "lo siento|lamento|perdón|perdon|disculpa",
        r"\b(?:lo siento|lamento|perd[oó]n|disculpa)\b.{0,30}\bno (?:puedo|me es posible|podr[eé]|tengo)",
    ),
    (
        "désol|desol|regrette|excuse",
        r"\b(?:d[ée]sol[ée]e?|regrette|excuse)\b.{0,40}\b(?:ne (?:peux|puis|pourrai)|pas en mesure)",
    ),
    (
        "desculp|sinto muito|lamento",
        r"\b(?:desculp|sinto muito|lamento).{0,30}\bn[ãa]o (?:posso|consigo|poderei)",
    ),
    (
        "mi dispiace|spiacente|scusa",
        r"\b(?:mi dispiace|spiacente|scusa).{0,30}\bnon (?:posso|sono in grado|riesco)",
    ),
    # German, Dutch, Slavic, Turkish, Arabic, Hindi, Vietnamese, Indonesian
    (
        "tut mir leid|entschuldig|bedaure|leider",
        r"\b(?:tut mir leid|entschuldig|bedaure|leider).{0,30}\b(?:kann ich|ich kann|bin ich)\b.{0,60}\bnicht\b",
    ),
    ("het spijt me|sorry|helaas", r"\b(?:het spijt me|sorry|helaas).{0,30}\bkan ik\b.{0,60}\bniet\b"),
    (
        "извини|прости|к сожалению|сожалею",
        r"(?:извини|прости|к сожалению|сожалею).{0,40}не (?:могу|смогу|в состоянии)",
    ),
    (
        "przepraszam|przykro mi|niestety",
        r"(?:przepraszam|przykro mi|niestety).{0,40}nie (?:mog[ęe]|jestem w stanie)",
    ),
    (
        "üzgünüm|maalesef|özür dilerim",
        r"(?:üzgünüm|maalesef|özür dilerim).{0,60}(?:yapamam|edemem|veremem|yardımcı olamam|mümkün değil)",
    ),
    (
        "آسف|عذرا|عذرًا|أعتذر|للأسف",
        r"(?:آسف|عذرا|عذرًا|أعتذر|للأسف).{0,40}(?:لا أستطيع|لا يمكنني|لن أتمكن)",
    ),
    ("क्षमा|माफ़|माफ|खेद", r"(?:क्षमा|माफ़|माफ|खेद).{0,60}(?:नहीं कर सकता|नहीं दे सकता|असमर्थ)"),
    ("xin lỗi|rất tiếc", r"(?:xin lỗi|rất tiếc).{0,40}không thể"),
    ("maaf", r"\b(?:maaf|mohon maaf).{0,40}tidak (?:dapat|bisa)"),
)
_REFUSAL = re.compile("|".join(phrase for _, phrase in _REFUSALS))
_REFUSAL_WORDS = tuple(dict.fromkeys(word for words, _ in _REFUSALS for word in words.split("|")))


def _refuses(text: str) -> bool:
    """Whether a text in lower case declines."""
    for word in _REFUSAL_WORDS:
        if word in text:
            return _REFUSAL.search(text) is not None
    return False


def information(text: str) -> int:
    """Bytes of information: what zlib (level 1) leaves of the UTF-8 text, its own frame not counted."""
    return len(zlib.compress(text.encode("utf-8", "replace"), 1)) - _ZLIB_EMPTY


def score_messages(messages: Sequence[Message] | None) -> tuple[float, float, list[str]]:
    """Quality and complexity of one row, each in [1, 6], and the flags that explain a low quality."""
    turns = talk_turns(messages or ())
    flags: set[str] = set()
    if all(_NOTHING.fullmatch(answer) for _, answer in turns):
        flags.add("no_answer")
    graded = turns[:_MAX_TURNS]
    quality = sum(_quality(asked, answer, flags) for asked, answer in graded) / len(graded) if graded else WORST
    return quality, _complexity(turns), sorted(flags)


def score_rows(rows: Sequence[Sequence[Message] | None]) -> tuple[F64, F64, list[list[str]]]:
    """`score_messages` of every row: quality (n,), complexity (n,) and flags."""
    scored = [score_messages(messages) for messages in rows]
    quality = np.array([q for q, _, _ in scored], dtype=np.float64)
    complexity = np.array([c for _, c, _ in scored], dtype=np.float64)
    return quality, complexity, [f for _, _, f in scored]


def talk_turns(messages: Sequence[Message], most: int | None = None) -> list[tuple[str, str]]:
    """(what was asked, what was answered) in order; messages in a row by the same side are one text. Of each message
    the first `most` characters are taken; None: all."""
    turns: list[tuple[str, str]] = []
    asked: list[str] = []
    answered: list[str] = []
    for message in messages:
        content = (message["content"] or "").strip()[:most]
        if message["role"] in ("assistant", "function_call"):
            answered.append(content)
        elif message["role"] == "user":
            if answered:
                turns.append(("\n".join(asked), "\n".join(answered)))
                asked, answered = [], []
            asked.append(content)
    if asked or answered:
        turns.append(("\n".join(asked), "\n".join(answered)))
    return turns


def _quality(asked: str, whole: str, flags: set[str]) -> float:
    if _NOTHING.fullmatch(whole):
        return WORST
    asked, answer = asked[:MAX_CHARS], whole[:MAX_CHARS]
    told, wanted = information(answer), information(asked)
    # where a text ends tells nothing of what was written once it is cut
    left = _completeness(whole, told, flags) * _variety(answer, told, flags)
    left *= _novelty(asked, answer, told, wanted, flags) * _clean(answer, flags)
    if _refuses(answer[:300].lower()):
        flags.add("refusal")
        # an answer that goes on at length after "as an AI" does help somewhat
        left *= 0.35 if told < 256 else 0.60
    return 1 + 5 * left


def _completeness(answer: str, told: int, flags: set[str]) -> float:
    """0.5 where the answer breaks off: an open code fence, or prose that stops at a letter, a comma or a dash."""
    open_fence = answer.count("```") % 2 == 1
    # scripts and genres without full stops (Thai, poems, lists) are no evidence of a cut
    prose = told > 64 and len(_SENTENCE_END.findall(answer)) >= 2 and not _MARKED_LINE.match(answer.rsplit("\n", 1)[-1])
    if open_fence or (prose and (answer[-1].isalpha() or answer[-1] in ",،，、;；-–—")):
        flags.add("cut_off")
        return 0.5
    return 1.0


def _variety(answer: str, told: int, flags: set[str]) -> float:
    """1 for natural text and code, 0 where zlib leaves less than a tenth: the same words again and again."""
    size = len(answer.encode("utf-8", "replace"))
    if size < 32:
        return 1.0
    variety = min(1.0, max(0.0, (told / size - 0.10) / 0.15))
    if variety < 0.5:
        flags.add("repetitive")
    return variety


def _novelty(asked: str, answer: str, told: int, wanted: int, flags: set[str]) -> float:
    """From 0.4 (the answer only repeats the request) to 1 (at least half of its information is new). A short answer,
    whose information zlib cannot tell from its own bookkeeping, repeats the request where it is the request."""
    if not asked:
        return 1.0
    if told < SHORT:
        if _bare(asked) != _bare(answer):
            return 1.0
        flags.add("echo")
        return 0.4
    new = max(0, information(asked + "\n" + answer) - wanted) / told
    if new < 0.2:
        flags.add("echo")
    return 0.4 + 0.6 * min(1.0, new / 0.5)


def _bare(text: str) -> str:
    """A text in lower case, without the spaces and sentence marks at its ends: two texts that agree in it say the same,
    however they are written down."""
    return text.casefold().strip(_AROUND)


def _clean(answer: str, flags: set[str]) -> float:
    """1 without broken characters or markup left from a web page; 0 where they are a tenth of the text."""
    clean = max(0.0, 1 - 10 * len(_GARBLED.findall(answer)) / len(answer))
    if clean < 0.8:
        flags.add("garbled")
    return clean


def _complexity(turns: Sequence[tuple[str, str]]) -> float:
    """Kinds of thing that the request has, of five, and the number of turns."""
    asked = "\n".join(question for question, _ in turns)[:MAX_CHARS]
    demands = sum(1 for demand in _DEMANDS if demand.search(asked))
    depth = math.log2(max(1, len(turns))) / 3
    return 1 + 5 * (0.70 * min(1.0, demands / 4) + 0.30 * min(1.0, depth))
