"""Where a response ends."""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import integers, lists, sampled_from

from reasontrain.sampler.sequence import SequenceState
from reasontrain.sampler.stop_criteria import StopCriteria
from reasontrain.types import RunError


def ends_at(
    tiny: type, response: list[int], *texts: str, ids: frozenset[int] = frozenset()
) -> int | None:
    """How many tokens there are when the response ends."""
    stop_criteria = StopCriteria(ids, texts, tiny.tokenizer())
    return next((n for n in range(1, len(response) + 1) if stop_criteria(response[:n])), None)


def test_a_stop_text_may_span_tokens(tiny: type) -> None:
    assert ends_at(tiny, list(b"so </answer> and on"), "</answer>") == len("so </answer>")
    assert ends_at(tiny, list(b"so </answe"), "</answer>") is None


def test_the_first_of_several_stop_texts_ends(tiny: type) -> None:
    assert ends_at(tiny, list(b"one two three"), "three", "tw") == len("one tw")


def test_a_character_of_several_tokens_is_complete_with_its_last(tiny: type) -> None:
    assert ends_at(tiny, list("naïve €5 end".encode()), "€") == len("naïve €".encode())


def test_a_cut_character_before_the_text_does_no_harm(tiny: type) -> None:
    for cut in range(1, 6):
        assert ends_at(tiny, list("€€€".encode()[cut:] + b"ab"), "ab") == 9 - cut + 2


def test_a_special_token_counts_as_its_text(tiny: type) -> None:
    assert ends_at(tiny, [*b"ab", tiny.THINK, *b"cd"], "<think>") == 3
    assert ends_at(tiny, [*b"ab", tiny.THINK, *b"cd"], "abcd") is None


def test_stop_ids_end_at_once(tiny: type) -> None:
    assert ends_at(tiny, [5, 6, 7], ids=frozenset({6})) == 2


def test_a_row_that_is_done_takes_nothing(tiny: type) -> None:
    prompt, stop_criteria = tiny.prompts(3)[0], StopCriteria(frozenset({9}), (), tiny.tokenizer())
    row = SequenceState(prompt, 4, 4, budget=3)
    for token in (8, 9, 8):
        row.append(token, -1.0, stop_criteria)
    assert (row.response, row.logp, row.done) == ([8, 9], [-1.0, -1.0], True)
    assert not row.rollout(tiny.tokenizer()).truncated
    cut = SequenceState(prompt, 5, 4, budget=1)
    cut.append(8, -1.0, stop_criteria)
    assert cut.done
    assert cut.rollout(tiny.tokenizer()).truncated
    just = SequenceState(prompt, 6, 4, budget=1)
    just.append(9, -1.0, stop_criteria)
    assert not just.rollout(tiny.tokenizer()).truncated


@pytest.mark.parametrize("logp", [math.nan, -math.inf])
def test_a_broken_model_is_named(tiny: type, logp: float) -> None:
    row = SequenceState(tiny.prompts(3)[0], 12, 12, budget=3)
    with pytest.raises(RunError, match="rollout 12 no finite log-prob at token 1"):
        row.append(1, logp, StopCriteria(frozenset(), (), tiny.tokenizer()))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=lists(integers(1, 3), min_size=12, max_size=12),
    text=sampled_from(["€5", "b €", "a ", "\nb", "ab", " "]),
)
def test_stop_texts_are_those_of_a_whole_decoding(tiny: type, cuts: list[int], text: str) -> None:
    said = [
        byte
        for cut, part in zip(cuts, ["a", " ", "b", "€", "5", "\n"] * 2, strict=True)
        for byte in part.encode() * cut
    ]
    whole = (n for n in range(1, len(said) + 1) if text in bytes(said[:n]).decode(errors="replace"))
    assert ends_at(tiny, said, text) == next(whole, None)


def test_only_what_may_complete_a_text_has_its_tail_decoded(tiny: type) -> None:
    stop_criteria = StopCriteria(frozenset(), ("xyz",), tiny.tokenizer())
    asked = [stop_criteria._may_complete(byte, "xyz") for byte in b"xyz"]
    assert asked == [False, False, True]
    assert stop_criteria._may_complete("€".encode()[1], "xyz")  # a part of a character
    assert stop_criteria._may_complete(
        ord("a"), "xyz "
    )  # spaces are decoded in other ways by other tokenizers
