"""Statements of an answer in many languages."""

from __future__ import annotations

import pytest

from reasontrain.tasks.grading.extract import extract
from reasontrain.tasks.grading.languages import LANGUAGES, Language


@pytest.mark.parametrize(
    "text",
    [
        *(
            "La réponse est 5.",
            "Réponse : 5",
            "**Réponse finale :** 5",
            "La réponse finale est $5$.",
        ),
        *("Die Antwort ist **5**.", "Antwort: 5", "Die endgültige Antwort lautet 5."),
        *("La respuesta es 5.", "Respuesta: 5", "La respuesta final es $5$."),
        *("La risposta è 5.", "Risposta finale: 5", "A resposta é 5.", "Resposta: 5"),
        *("Het antwoord is 5.", "Antwoord: 5", "Svaret är 5.", "Svaret er 5.", "Vastaus on 5."),
        *("Odpowiedź: 5", "Odpowiedź to 5.", "Odpověď je 5.", "Răspunsul este 5.", "A válasz 5."),
        *("Ответ: 5", "Ответ — 5.", "Ответ: **5**.", "Відповідь: 5", "Отговорът е 5."),
        *("Η απάντηση είναι 5.", "Cevap: 5", "Cevap 5'tir.", "Đáp án là 5.", "Đáp số: 5"),
        *("Jawabannya adalah 5.", "Jawaban: 5", "Ang sagot ay 5.", "Jibu ni 5."),
        *(
            "答案是5。",
            "答案：5",
            "最终答案为 **5**。",
            "因此，答案是 $5$。",
            "答：5",
            "正确答案是5",
        ),
        *(
            "答えは 5 です。",
            "答えは5です。",
            "最終的な答えは $5$ です。",
            "答え：5",
            "答えは5となります。",
        ),
        *("정답은 5입니다.", "정답: 5", "따라서 정답은 **5**입니다.", "답은 5이다."),
        *("उत्तर 5 है।", "सही उत्तर है: 5", "उत्तर: 5", "উত্তর হল 5।", "উত্তর: 5", "సమాధానం: 5"),
        *("คำตอบคือ 5", "คำตอบ: 5", "الجواب هو 5.", "الإجابة النهائية هي 5", "الجواب: 5"),
        *("پاسخ 5 است.", "جواب: 5", "جواب 5 ہے", "התשובה היא 5."),
    ],
)
def test_statements_in_other_languages(text: str) -> None:
    assert extract(f"3 + 2 = 5, 9 - 2 = 7.\n{text}") == "5"
    assert extract(f"{text}\n\n9 - 2 = 7") == "5"


@pytest.mark.parametrize("language", LANGUAGES.values(), ids=LANGUAGES)
def test_every_entry_of_the_table_is_used(language: Language) -> None:
    for noun in language.nouns:
        assert extract(f"7.\n{noun}: 5") == "5"
        assert extract(f"7.\n**{noun.capitalize()}:** $5$") == "5"
    spaced = " " if language.nouns[0][-1:].isalpha() and language.ands[:1] != ("和",) else ""
    for copula in language.copulas:
        assert extract(f"7.\n{language.nouns[0]}{spaced}{copula} 5") == "5"
    for cause in (*language.causes, *language.remarks):
        assert extract(f"7.\n{language.nouns[0]}: 5 {cause} 7 + 8") == "5"
    for join in language.ands:
        assert extract(f"$\\boxed{{5}}$ {join} $\\boxed{{6}}$") == "5, 6"
    for join in language.ors:
        assert extract(f"$\\boxed{{5}}$ {join} $\\boxed{{6}}$") == "5 or 6"
        assert extract(f"$\\boxed{{5}}$ {join} 6") == "5 or 6"
    for end in language.ends:
        assert extract(f"7.\n{language.nouns[0]}: 5{end}") == "5"


def test_a_noun_in_another_word_or_use_is_no_statement() -> None:
    for text in (
        "I answered 5 of them in all.",
        "He answers 5 questions each day or so.",
        "The unanswered: 5 letters are lost.",
        "Die Antworten auf 5 Fragen fehlen noch immer.",
        "回答了5个问题，还剩下很多没有做。",
    ):
        assert extract(text) == "", text
