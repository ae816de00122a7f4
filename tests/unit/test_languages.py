"""Languages of texts, roughly: texts of our own in each language that is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mig_spark.kernels.ingest.languages import UNKNOWN_LATIN, language_of

TEXTS = {
    "English": "Write a letter to the mayor in which you ask for more trees on the street.",
    "German": "Schreibe einen Brief an die Bürgermeisterin, in dem du um mehr Bäume auf der Straße bittest.",
    "French": "Écris une lettre au maire pour demander plus d'arbres dans les rues de la ville.",
    "Spanish": "Escribe una carta para el alcalde en la que pidas más árboles en las calles.",
    "Portuguese": "Escreva uma carta para o prefeito e peça mais árvores nas ruas da cidade, por favor.",
    "Italian": "Scrivi una lettera al sindaco in cui chiedi più alberi per le strade della città.",
    "Dutch": "Schrijf een brief aan de burgemeester waarin je om meer bomen in het centrum vraagt.",
    "Polish": "Napisz list do burmistrza, w którym prosisz o więcej drzew na ulicach, i podziękuj za to.",
    "Turkish": "Belediye başkanı için bir mektup yaz ve sokaklarda daha çok ağaç iste.",
    "Vietnamese": "Hãy viết một bức thư cho thị trưởng để xin thêm cây xanh trong thành phố.",
    "Indonesian": "Tulis surat untuk wali kota dan mintalah lebih banyak pohon di jalan yang panas ini.",
    "Swedish": "Skriv ett brev till borgmästaren och be om fler träd på gatan som är för varm.",
    "Chinese": "给市长写一封信，请求在街道上多种一些树。",
    "Japanese": "市長に手紙を書いて、通りにもっと木を植えるように頼んでください。",
    "Korean": "시장에게 거리에 나무를 더 심어 달라고 부탁하는 편지를 써 주세요.",
    "Cyrillic script": "Напишите письмо мэру с просьбой посадить больше деревьев.",
    "Arabic script": "اكتب رسالة إلى رئيس البلدية تطلب فيها المزيد من الأشجار.",
    "Devanagari script": "महापौर को एक पत्र लिखें और सड़क पर और पेड़ माँगें।",
    UNKNOWN_LATIN: "x = foo(bar); return baz[quux] + zip(alpha, beta, gamma)",
    "": "12 * (3 + 4) = 84",
}


@pytest.mark.parametrize("language", TEXTS)
def test_a_sentence_of_each_language(language):
    assert language_of(TEXTS[language]) == language
    assert language_of(TEXTS[language].upper() if language in ("English", "German") else TEXTS[language]) == language


def test_code_and_names_inside_do_not_change_the_language():
    assert language_of("请解释一下这段代码：for i in range(10): print(i)，它的输出是什么，为什么？") == "Chinese"
    assert language_of("What does 你好 mean, and how is it said in the south of China?") == "English"


@pytest.mark.parametrize(
    "text",
    [
        "How do I sort a list number 3? First, do step 3. Then continue carefully.",
        "Do I need a visa? I do not know if I can go.",
        "Can I do my taxes at home?",
        "i do not have a car, can you help me plan a trip",
    ],
)
def test_words_that_several_languages_have_do_not_outvote_those_of_one(text):
    assert language_of(text) == "English"


@given(st.text(max_size=200))
def test_any_text_has_an_answer(text):
    told = language_of(text)
    assert told in TEXTS or told.endswith(" script"), told
