"""Roughly which language a text is in: by its script, and for Latin letters by the commonest words. No model, no data.

It is there to choose a model that can read a pool, not to sort rows by language: short texts, code and mixtures are
often told wrongly, and of most scripts only the script is told.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

#: Told of a Latin text that has too few of the words below: names, numbers, code, lists, other languages.
UNKNOWN_LATIN = "other text in Latin letters"
ENGLISH = "English"
#: Words that are every few words of any text in their language.
_WORDS = {
    ENGLISH: "the of and to is in that it for with as are on be this what how you your a an or from which "
    "i do my me can was have not if when then will we they by at does",
    "German": "der die das und ist nicht ein eine einen zu mit für den dem von auf wie ich sich werden sind im",
    "French": "le la les des et est une un que pour dans qui pas en du de ce au sur avec sont",
    "Spanish": "el la los las de que y en un una por con para es del se lo como al más",
    "Portuguese": "o a os as de que e em um uma para com não do da no na é por mais",
    "Italian": "il la di che e un una per con non del della sono è in le gli dei al si",
    "Dutch": "de het een en van is dat niet op te voor met zijn in die wordt aan ook",
    "Polish": "i w na nie że się z do jest to jak o dla są od po który",
    "Turkish": "ve bir bu için ile da de ne mi olarak olan en daha gibi çok",
    "Vietnamese": "là và của các có không được cho một trong những với này để người khi",
    "Indonesian": "yang dan di untuk dengan ini itu adalah dari pada dalam tidak ke atau",
    "Swedish": "och att det är en som på för av inte med till den har de om",
}
_BY_LANGUAGE = {language: frozenset(words.split()) for language, words in _WORDS.items()}
#: In how many languages a word is among the commonest: "do" says less of a text than "how" does.
_LANGUAGES_OF = Counter(word for common in _BY_LANGUAGE.values() for word in common)
#: Least share of a text's words that must be such words.
_LEAST = 0.12
#: Fewer letters than this say nothing, and fewer words than this say nothing of a Latin text.
_FEW_LETTERS, _FEW_WORDS = 8, 4
#: A character of these scripts says about as much as so many Latin letters.
_WEIGHT = {"CJK": 3, "HIRAGANA": 2, "KATAKANA": 2, "HANGUL": 2}
_KANA = ("HIRAGANA", "KATAKANA")
#: Least share of kana among the characters of a Japanese text.
_LEAST_KANA = 0.05
_MOST_CHARACTERS = 2_000
_WORD = re.compile(r"[^\W\d_]+")


def language_of(text: str) -> str:
    """The language of a text, or `... script` where only the script is told; "" for a text of hardly any letters.

    >>> language_of("What is the capital of France, and how many people are in it?")
    'English'
    >>> language_of("Wie heißt die Hauptstadt von Frankreich, und ist sie groß?")
    'German'
    >>> language_of("法国的首都是哪里？")
    'Chinese'
    >>> language_of("12 + 30 = ?")
    ''
    """
    text = text[:_MOST_CHARACTERS]
    scripts = Counter(script for c in text if (script := _script(c)))
    if sum(scripts[script] * _WEIGHT.get(script, 1) for script in scripts) < _FEW_LETTERS:
        return ""
    kana = sum(scripts.pop(script, 0) for script in _KANA)
    east = scripts.get("CJK", 0) + kana
    if kana > _LEAST_KANA * east:
        scripts.pop("CJK", None)
        scripts["KANA"] = 2 * east
    most = max(sorted(scripts), key=lambda script: scripts[script] * _WEIGHT.get(script, 1))
    if most == "LATIN":
        return _latin(text)
    return {"CJK": "Chinese", "KANA": "Japanese", "HANGUL": "Korean"}.get(most, f"{most.capitalize()} script")


def _latin(text: str) -> str:
    words = _WORD.findall(text.lower())
    if len(words) < _FEW_WORDS:
        return UNKNOWN_LATIN
    found = {language: [word for word in words if word in common] for language, common in _BY_LANGUAGE.items()}
    best = max(found, key=lambda language: sum(1 / _LANGUAGES_OF[word] for word in found[language]))
    # one word that comes again and again may be a name, as x or w in a formula
    told = len(found[best]) >= _LEAST * len(words) and len(set(found[best])) > 1
    return best if told else UNKNOWN_LATIN


@lru_cache(maxsize=1 << 16)
def _script(character: str) -> str:
    """The first word of a letter's Unicode name, which is its script; "" of what is no letter."""
    return unicodedata.name(character, "").partition(" ")[0] if character.isalpha() else ""
