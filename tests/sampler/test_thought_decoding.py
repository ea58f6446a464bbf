"""Chains of thought in the decode loop: numbers 1, 4 (the sampler's half), 7 and 8 of the method's
list of tests.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import tensor

from reasontrain import rng
from reasontrain.data.sampling import Sampling
from reasontrain.data.thought import FuzzyThought, HardThought, SoftThought, Thought
from reasontrain.models import Policy
from reasontrain.recipe.sampling import SampleSettings
from reasontrain.rng import Stream
from reasontrain.sampler.local import LocalSampler
from reasontrain.types import Prompt, Rollout, TokenKind, UserError
from reasontrain.vocab import softmax_

LENGTHS = (3, 19, 1, 11, 12, 2, 7)
ENDING = {"max_tokens": 12, "max_answer_tokens": 5, "stop_text": "ab", "early": "{", "late": "ab{"}
HARD, SOFT, FUZZY = HardThought(**ENDING), SoftThought(**ENDING), FuzzyThought(**ENDING)
KINDS = [HARD, SOFT, FUZZY]


def sample(
    policy: Policy,
    thought: Thought,
    prompts: list[Prompt],
    *,
    num: int = 1,
    seed: int = 0,
    **more: float,
) -> list[Rollout]:
    """With a greedy answer, unless told otherwise, and a record of what was fed."""
    sampling = SampleSettings(**{"temperature": 0.0, "max_tokens": 40, **more}, thought=thought)
    return LocalSampler(policy, seed=seed, max_num_seqs=5).sample(
        prompts, sampling, num=num, first_id=0
    )


def talkative(tiny: type, name: str = "qwen3", dtype: torch.dtype = torch.float32) -> Policy:
    """A policy that likes a, b and c, so that some of its thoughts come to "ab"."""
    policy = tiny.policy(name, dtype)
    tiny.bias(policy, dict.fromkeys(b"abc", 3.0))
    return policy


# ---- 1: greedy


@pytest.mark.parametrize("name", ["qwen3", "llama", "gemma", "gemma3", "mistral"])
def test_fuzzy_greedy_is_hard_greedy(tiny: type, name: str) -> None:
    """Without noise and ties a mixture at tau 1e-4 is the token itself: the same shadow, answer and
    log-probs.
    """
    policy, prompts = tiny.policy(name), tiny.prompts(*LENGTHS)
    fuzzy, hard = (
        sample(policy, replace(FUZZY, gamma=0.0), prompts),
        sample(policy, replace(HARD, tau=0.0), prompts),
    )
    assert [r.response_ids for r in fuzzy] == [r.response_ids for r in hard]
    assert [r.text for r in fuzzy] == [r.text for r in hard]
    for ours, theirs in zip(fuzzy, hard, strict=True):
        embeddings_TD = policy.embed(
            tensor([ours.response_ids[: ours.kinds.count(TokenKind.SOFT)]])
        )[0]
        torch.testing.assert_close(
            ours.soft.fed(), embeddings_TD.detach(), rtol=0, atol=1e-4
        )  # e^-9 of the second
        assert theirs.soft is None


def test_an_exact_tie_is_half_of_each_token(tiny: type) -> None:
    """As bfloat16 logits make it: 0.5 / 0.5, and the fuzzy mixture is no token."""
    policy = tiny.policy()
    tiny.bias(policy, dict.fromkeys(b"ab", 0.0), others=-1e4)
    with torch.no_grad():
        weight = policy.model.get_output_embeddings().weight
        weight[ord("b")] = weight[ord("a")]
    (rollout,) = sample(policy, replace(FUZZY, gamma=0.0, stop_text="x"), tiny.prompts(4))
    a, b = policy.embed(tensor([[ord("a"), ord("b")]]))[0].detach()
    torch.testing.assert_close(rollout.soft.fed()[0], (a + b) / 2, rtol=0, atol=1e-6)


def test_in_bfloat16_logits_would_tie_and_ours_do_not(
    tiny: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Products in bfloat16 that are summed in float32 never tie; rounded to bfloat16, as others
    have them, some do.

    So a fuzzy step is the token itself, rounded as all that is fed, but where the two likeliest are
    within 20 taus.
    """
    policy, gaps, ties = (
        tiny.policy(dtype=torch.bfloat16),
        [],
        {torch.float32: 0, torch.bfloat16: 0},
    )

    def watched(logits_MV: torch.Tensor, tau: float) -> torch.Tensor:
        for logits_V in logits_MV:
            gap = {dtype: -float(logits_V.to(dtype).topk(2).values.diff()) for dtype in ties}
            gaps.append(gap[torch.float32])
            for dtype in ties:
                ties[dtype] += gap[dtype] == 0
        return softmax_(logits_MV, tau)

    monkeypatch.setattr("reasontrain.sampler.thought_decoding.softmax_", watched)
    for prompt in tiny.prompts(*range(1, 13)):
        gaps.clear()
        (rollout,) = sample(policy, replace(FUZZY, gamma=0.0, max_tokens=30), [prompt])
        token_TD = policy.embed(tensor([rollout.response_ids[: len(gaps)]]))[0].detach().bfloat16()
        for gap, token_D, fed_D in zip(gaps, token_TD, rollout.soft.fed(), strict=True):
            assert torch.equal(fed_D, token_D) or gap < 20 * FUZZY.tau
    assert ties[torch.float32] == 0 < ties[torch.bfloat16]


@pytest.mark.parametrize(
    "thought", [replace(SOFT, gamma=0.0), replace(FUZZY, gamma=0.0), replace(HARD, tau=0.0)]
)
def test_greedy_thoughts_do_not_depend_on_the_seed(tiny: type, thought: Thought) -> None:
    policy, prompts = talkative(tiny), tiny.prompts(*LENGTHS)
    first, second = (sample(policy, thought, prompts, seed=seed) for seed in (0, 1))
    assert [r.response_ids for r in first] == [r.response_ids for r in second]


# ---- 4: what is fed


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("thought", [SOFT, FUZZY])
def test_what_is_fed_is_the_mixture_with_noise_of_its_key(
    tiny: type, thought: Thought, dtype: torch.dtype
) -> None:
    policy = talkative(tiny, dtype=dtype)
    sigma = thought.gamma * policy.input_space.rms
    for rollout in sample(policy, thought, tiny.prompts(*LENGTHS), num=2, seed=9):
        fed_TD, length = rollout.soft.fed(), rollout.kinds.count(TokenKind.SOFT)
        assert (fed_TD.shape, fed_TD.dtype) == (
            (length, policy.embed(tensor([[0]])).shape[-1]),
            dtype,
        )
        assert (rollout.soft.tau, rollout.soft.sigma) == (thought.tau, sigma)
        with torch.no_grad():
            prompt_1TD = policy.embed(tensor([rollout.prompt_ids]))
            embeds = torch.cat([prompt_1TD, fed_TD[None].to(prompt_1TD)], 1)
            hidden_TD = policy.hidden(embeds=embeds)[0, len(rollout.prompt_ids) - 1 : -1]
            logits_TV = policy.head.logits(hidden_TD)
        mean_TD = (logits_TV / thought.tau).softmax(
            -1
        ) @ policy.model.get_input_embeddings().weight.detach()
        place_T1, size_1D = torch.arange(length)[:, None], torch.arange(fed_TD.shape[1])[None]
        noise_TD = (
            sigma * rng.normal(9, Stream.SOFT_TOKEN_NOISE, rollout.id, place_T1, size_1D).float()
        )
        if (
            thought is SOFT or dtype == torch.float32
        ):  # a fuzzy mixture of bfloat16 logits may turn over
            close = {"rtol": 0, "atol": 1e-5 if dtype == torch.float32 else 0.05}
            torch.testing.assert_close(fed_TD.float(), mean_TD + noise_TD, **close)
            assert (
                torch.equal(logits_TV.argmax(-1), tensor(rollout.response_ids[:length]))
                or dtype == torch.bfloat16
            )


@pytest.mark.parametrize("thought", KINDS)
def test_company_does_not_change_a_thought(tiny: type, thought: Thought) -> None:
    policy, prompts = talkative(tiny), tiny.prompts(*LENGTHS)
    sampling = SampleSettings(max_tokens=40, thought=thought)
    alone, together = (
        LocalSampler(policy, seed=1, max_num_seqs=rows).sample(prompts, sampling, num=3, first_id=7)
        for rows in (1, 100)
    )
    assert [(r.response_ids, r.kinds) for r in alone] == [
        (r.response_ids, r.kinds) for r in together
    ]
    for one, other in zip(alone, together, strict=True):
        if one.soft is not None:
            torch.testing.assert_close(one.soft.fed(), other.soft.fed(), rtol=0, atol=1e-4)


def test_rows_that_are_no_token_are_never_mixed_in(tiny: type) -> None:
    """Rows 258 and up belong to nothing: the likeliest of them is as if it were not there."""
    policy = tiny.policy()
    expected = sample(policy, replace(SOFT, gamma=0.0), tiny.prompts(*LENGTHS))
    policy.input_space = replace(policy.input_space, num_tokens=258)
    without = sample(policy, replace(SOFT, gamma=0.0), tiny.prompts(*LENGTHS))
    tiny.bias(policy, {259: 1e3})
    found = sample(policy, replace(SOFT, gamma=0.0), tiny.prompts(*LENGTHS))
    assert [r.response_ids for r in found] == [r.response_ids for r in without]
    assert all(bool(r.soft.fed().isfinite().all()) for r in found)
    assert any(
        not torch.equal(a.soft.fed(), b.soft.fed()) for a, b in zip(expected, without, strict=True)
    )


# ---- 8: three phases


@pytest.mark.parametrize("thought", KINDS)
def test_a_thought_is_followed_by_what_is_forced_and_then_by_an_answer(
    tiny: type, thought: Thought
) -> None:
    policy = talkative(tiny)
    rollouts = sample(policy, thought, tiny.prompts(*LENGTHS), num=20, temperature=1.0)
    own = TokenKind.RESPONSE if thought is HARD else TokenKind.SOFT
    for r in rollouts:
        length = r.kinds.index(TokenKind.FORCED)
        forced = r.kinds.count(TokenKind.FORCED)
        answer = len(r.kinds) - length - forced
        assert (
            r.kinds
            == (own,) * length + (TokenKind.FORCED,) * forced + (TokenKind.RESPONSE,) * answer
        )
        said = policy.tokenizer.decode(r.response_ids[:length])
        prefill = policy.tokenizer.decode(r.response_ids[length : length + forced])
        assert 1 <= length <= 12
        assert 1 <= answer <= 5
        assert r.truncated == (r.response_ids[-1] != tiny.END)
        assert r.truncated or answer <= 5
        assert r.concluded == said.endswith("ab") == (prefill == "{")
        assert prefill == ("{" if r.concluded else "ab{")
        assert r.concluded or length == 12 or r.response_ids[length - 1] == tiny.END
        assert "ab" not in said[:-1]
        if thought is HARD:
            assert all(
                (value == 0.0) == (kind == TokenKind.FORCED)
                for value, kind in zip(r.sampled_logp, r.kinds, strict=True)
            )
        else:
            assert r.sampled_logp == ()
            assert len(r.soft.fed()) == length
    assert {r.concluded for r in rollouts} == {True, False}


def test_the_end_of_the_text_ends_a_thought_as_its_limit_does(tiny: type) -> None:
    policy = tiny.policy()
    tiny.bias(policy, {tiny.END: 0.0}, others=-1e4)
    for thought in KINDS:
        (rollout,) = sample(policy, thought, tiny.prompts(4))
        assert rollout.response_ids == (tiny.END, *b"ab{", tiny.END)
        assert (rollout.concluded, rollout.truncated) == (False, False)


@pytest.mark.parametrize("thought", KINDS)
def test_text_is_what_comes_after_the_thought(tiny: type, thought: Thought) -> None:
    """7: only the answer is graded, whatever the shadow says."""
    policy = talkative(tiny)
    for r in sample(policy, thought, tiny.prompts(*LENGTHS), num=2):
        answer = policy.tokenizer.decode(
            r.response_ids[r.kinds.index(TokenKind.FORCED) :], skip_special_tokens=True
        )
        assert r.text == answer
        assert r.text.startswith("{" if r.concluded else "ab{")


def test_neither_prompt_nor_answer_is_fed_noise(
    tiny: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that is fed to the model are embeddings: of prompt, prefill and answer they are the
    tokens' own.
    """
    policy, fed = talkative(tiny), []
    monkeypatch.setattr("reasontrain.sampler.local.check_decoding", lambda policy: None)
    inner = policy.hidden

    def watched(ids=None, *, embeds=None, **more):
        fed.append((ids, embeds))
        return inner(ids, embeds=embeds, **more)

    monkeypatch.setattr(policy, "hidden", watched)
    (rollout,) = sample(policy, SOFT, tiny.prompts(6))
    length = rollout.kinds.index(TokenKind.FORCED)
    assert fed[0][0].tolist() == [list(rollout.prompt_ids)]
    for place, (ids, embeds) in enumerate(fed[1:]):
        assert ids is None
        expected = (
            rollout.soft.fed()[place]
            if place < length
            else policy.embed(tensor([[rollout.response_ids[place]]]))[0, 0]
        )
        assert torch.equal(embeds[0, 0], expected)


# ---- limits


def test_a_thought_is_shortened_to_what_the_context_leaves_and_refused_where_nothing_is_left(
    tiny: type,
) -> None:
    policy = tiny.policy()
    tiny.bias(policy, {tiny.END: -1e4})
    after = 3 + 5
    (rollout,) = sample(policy, SOFT, tiny.prompts(tiny.CONTEXT - after - 4))
    assert rollout.kinds.count(TokenKind.SOFT) == 4
    with pytest.raises(UserError, match="the forced text and the answer take up to 8 of them"):
        sample(policy, SOFT, tiny.prompts(tiny.CONTEXT - after))


def test_bounds_that_leave_no_room_are_refused() -> None:
    with pytest.raises(
        ValueError, match="`max_tokens` is 17, but a thought of 12 tokens, an answer of 5"
    ):
        Sampling(max_tokens=17, thought=SOFT)
    with pytest.raises(ValueError, match="`late` is empty"):
        SoftThought(late="")


def test_what_is_not_learned_from_is_not_kept(tiny: type) -> None:
    sampling = Sampling(max_tokens=40, thought=SOFT)
    (rollout,) = LocalSampler(tiny.policy(), seed=0).sample(
        tiny.prompts(4), sampling, num=1, first_id=0
    )
    assert rollout.soft is None
    assert rollout.kinds[0] == TokenKind.SOFT


def test_noise_is_normal() -> None:
    draws = rng.normal(1, torch.arange(400)[:, None], torch.arange(250)[None])
    assert float(draws.mean()) == pytest.approx(0, abs=4 / math.sqrt(draws.numel()))
    assert float(draws.var()) == pytest.approx(1, abs=4 * math.sqrt(2 / draws.numel()))
    assert float((draws**4).mean()) == pytest.approx(3, abs=0.15)
    assert float((draws[:, 1:] * draws[:, :-1]).mean()) == pytest.approx(
        0, abs=4 / math.sqrt(draws.numel())
    )
