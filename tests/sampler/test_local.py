"""The decode loop against transformers, against a plain forward, and against itself in other
company.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, tensor

from reasontrain import rng
from reasontrain.data.sampling import Sampling
from reasontrain.models import Policy, recompute_activations
from reasontrain.models.loading import check_head
from reasontrain.rng import Stream
from reasontrain.sampler import Sampler
from reasontrain.sampler.local import LocalSampler
from reasontrain.sampler.token_choice import truncate
from reasontrain.types import Problem, Prompt, Rollout, UserError, Weights
from tests.tiny import policy as tiny_policy

MODELS = ["qwen3", "qwen2", "llama", "gemma", "gemma3", "mistral"]
LENGTHS = (3, 19, 1, 11, 12, 2, 7)
NEAR = 1e-5


def generated(
    policy: Policy, prompt: Prompt, num_tokens: int, stop_ids: list[int]
) -> tuple[int, ...]:
    """What transformers decodes greedily from this prompt alone."""
    ids = tensor([prompt.ids])
    mask = torch.ones_like(ids)
    out = policy.model.generate(
        ids, attention_mask=mask, do_sample=False, max_new_tokens=num_tokens, eos_token_id=stop_ids
    )
    return tuple(out[0, len(prompt.ids) :].tolist())


@pytest.mark.parametrize("max_num_seqs", [3, 64])
@pytest.mark.parametrize("name", MODELS)
def test_greedy_equals_transformers(tiny: type, name: str, max_num_seqs: int) -> None:
    policy, prompts, stop_ids = tiny.policy(name), tiny.prompts(*LENGTHS), tuple(range(20))
    sampling = Sampling(temperature=0.0, max_tokens=30, stop_ids=stop_ids)
    rollouts = LocalSampler(policy, seed=0, max_num_seqs=max_num_seqs).sample(
        prompts, sampling, num=1, first_id=0
    )
    assert [r.response_ids for r in rollouts] == [
        generated(policy, p, 30, [tiny.END, *stop_ids]) for p in prompts
    ]
    assert [r.truncated for r in rollouts] == [
        r.response_ids[-1] not in {tiny.END, *stop_ids} for r in rollouts
    ]
    assert len({len(r.response_ids) for r in rollouts}) > 1


def test_ids_beyond_the_tokenizer_are_never_drawn_and_no_teacher_has_to_know_them() -> None:
    """The tokenizer has 512 ids; the policy's padding rows would win every draw."""
    padded = tiny_policy(vocab_size=640)
    with torch.no_grad():
        weight_VD = padded.model.get_output_embeddings().weight
        weight_VD[512:] = 50 * weight_VD[:128]
    prompt = Prompt(problem=Problem(id="p", prompt=""), ids=(5, 6, 7))
    (rollout,) = LocalSampler(padded, seed=0).sample(
        [prompt], Sampling(max_tokens=30), num=1, first_id=0
    )
    assert max(rollout.response_ids) < 512
    narrow = tiny_policy(seed=1)
    narrow.hidden(torch.tensor([rollout.response_ids]))  # an id of 512 or more has no embedding
    logp_V = padded.head.logits(padded.hidden(torch.tensor([prompt.ids]))[0])[-1].log_softmax(0)
    assert float(logp_V[:512].exp().sum()) == pytest.approx(1, abs=1e-5)
    assert rollout.sampled_logp[0] == pytest.approx(
        float(logp_V[rollout.response_ids[0]]), abs=1e-4
    )
    check_head(padded)


def test_greedy_equals_transformers_with_left_padding(tiny: type) -> None:
    policy, prompts = tiny.policy(), tiny.prompts(*LENGTHS)
    tiny.bias(policy, {tiny.END: -1e4})
    width = max(LENGTHS)
    ids = tensor([[tiny.PAD] * (width - len(p.ids)) + list(p.ids) for p in prompts])
    mask = tensor([[0] * (width - len(p.ids)) + [1] * len(p.ids) for p in prompts])
    expected = policy.model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=8)[
        :, width:
    ]
    rollouts = LocalSampler(policy, seed=0).sample(
        prompts, Sampling(temperature=0.0, max_tokens=8), num=1, first_id=0
    )
    assert [list(r.response_ids) for r in rollouts] == expected.tolist()


@pytest.mark.parametrize("temperature", [0.6, 1.0, 0.0])
@pytest.mark.parametrize("name", MODELS)
def test_logp_is_that_of_a_plain_forward(tiny: type, name: str, temperature: float) -> None:
    policy = tiny.policy(name)
    sampling = Sampling(temperature=temperature, top_p=0.9, max_tokens=25)
    for rollout in LocalSampler(policy, seed=5, max_num_seqs=4).sample(
        tiny.prompts(*LENGTHS), sampling, num=2, first_id=0
    ):
        logp_TV = tiny.logp(policy, rollout, temperature or 1.0)
        expected = logp_TV.gather(1, tensor(rollout.response_ids)[:, None])[:, 0]
        torch.testing.assert_close(tensor(rollout.sampled_logp), expected, rtol=0, atol=1e-5)


def near_tie(
    tiny: type, policy: Policy, seed: int, one: Rollout, other: Rollout, sampling: Sampling
) -> bool:
    """Whether the first token at which two rollouts part was decided by less than NEAR."""
    at = next(
        i
        for i, (a, b) in enumerate(zip(one.response_ids, other.response_ids, strict=False))
        if a != b
    )
    law = truncate(tiny.logp(policy, one, sampling.temperature).exp()[at : at + 1], sampling)[
        0
    ].double()
    boundary = (
        (law.cumsum(0) / law.sum() - rng.uniform(seed, Stream.SAMPLED_TOKENS, one.id, at))
        .abs()
        .min()
    )
    return bool(boundary < NEAR)


@pytest.mark.parametrize(
    "sampling", [Sampling(max_tokens=40), Sampling(top_p=0.8, top_k=40, min_p=0.01, max_tokens=40)]
)
def test_company_changes_a_rollout_at_near_ties_only(tiny: type, sampling: Sampling) -> None:
    policy, prompts = tiny.policy(), tiny.prompts(*LENGTHS)
    tiny.bias(policy, {tiny.END: 3.0})
    every = {
        m: LocalSampler(policy, seed=1, max_num_seqs=m).sample(
            prompts, sampling, num=4, first_id=40
        )
        for m in (1, 5, 100)
    }
    ties = []
    for max_num_seqs in (5, 100):
        for alone, together in zip(every[1], every[max_num_seqs], strict=True):
            if alone.response_ids != together.response_ids:
                ties.append((max_num_seqs, alone.id))
                assert near_tie(tiny, policy, 1, alone, together, sampling), (
                    f"rollout {alone.id} of {max_num_seqs} rows is another"
                )
            else:
                torch.testing.assert_close(
                    tensor(alone.sampled_logp), tensor(together.sampled_logp), rtol=0, atol=1e-5
                )
    assert len({len(r.response_ids) for r in every[1]}) > 8
    assert ties == []  # of 56 rollouts of up to 40 tokens


def test_a_rollout_is_a_function_of_its_id(tiny: type) -> None:
    policy, (first, second) = tiny.policy(), tiny.prompts(4, 9)
    sampler, sampling = LocalSampler(policy, seed=3), Sampling(max_tokens=20)
    both = sampler.sample([first, second], sampling, num=2, first_id=6)
    assert [(r.id, r.group) for r in both] == [(6, 6), (7, 6), (8, 8), (9, 8)]
    assert [r.prompt_ids for r in both] == [first.ids, first.ids, second.ids, second.ids]
    assert len({r.response_ids for r in both}) == 4
    alone = sampler.sample([second], sampling, num=2, first_id=8)
    assert [r.response_ids for r in alone] == [r.response_ids for r in both[2:]]
    swapped = sampler.sample([second, first], sampling, num=2, first_id=6)
    assert swapped[0].response_ids != both[2].response_ids
    other_seed = LocalSampler(policy, seed=4).sample([second], sampling, num=2, first_id=8)
    assert [r.response_ids for r in other_seed] != [r.response_ids for r in alone]


def test_the_same_call_is_the_same_to_the_bit(tiny: type) -> None:
    policy = tiny.policy()
    sampler = LocalSampler(policy, seed=3, max_num_seqs=5)
    assert sampler.sample(
        tiny.prompts(*LENGTHS), Sampling(max_tokens=40), num=2, first_id=0
    ) == sampler.sample(tiny.prompts(*LENGTHS), Sampling(max_tokens=40), num=2, first_id=0)


def test_tokens_follow_the_model(tiny: type) -> None:
    policy, prompt, ids = tiny.policy(), tiny.prompts(6)[0], torch.arange(65, 77)
    tiny.bias(policy, dict.fromkeys(ids.tolist(), 0.0), others=-1e4)
    rollouts = LocalSampler(policy, seed=2, max_num_seqs=1000).sample(
        [prompt], Sampling(max_tokens=2), num=4000, first_id=0
    )
    after = [
        r for r in rollouts if r.response_ids[0] == int(tiny.logp(policy, rollouts[0])[0].argmax())
    ]
    for place, chosen in (
        (0, rollouts),
        (1, after),
    ):  # the second token is that of rollouts with one and the same first
        expected_K = tiny.logp(policy, chosen[0])[place, ids].double().exp() * len(chosen)
        found_K = torch.bincount(tensor([r.response_ids[place] for r in chosen]), minlength=77)[ids]
        assert found_K.sum() == len(chosen)
        assert expected_K.min() > 5
        assert (
            (found_K - expected_K) ** 2 / expected_K
        ).sum() < 31.26  # the 99.9th percentile at 11 degrees of freedom


def test_a_group_is_prefilled_once(tiny: type) -> None:
    policy = tiny.policy()
    sampler = LocalSampler(policy, seed=0)
    policy.shapes.clear()  # those of the check
    sampler.sample(tiny.prompts(5, 9), Sampling(max_tokens=3), num=6, first_id=0)
    assert policy.shapes[:2] == [(2, 9), (12, 1)]


def test_rows_never_exceed_their_bound_and_finished_ones_leave(tiny: type) -> None:
    policy = tiny.policy()
    tiny.bias(policy, {tiny.END: 4.0})
    rollouts = LocalSampler(policy, seed=0, max_num_seqs=16).sample(
        tiny.prompts(5, 9), Sampling(max_tokens=60), num=40, first_id=0
    )
    num_tokens, decoded = (
        sum(len(r.response_ids) for r in rollouts),
        [rows for rows, width in policy.shapes if width == 1],
    )
    assert max(decoded) == 16
    assert sum(decoded) < 1.3 * num_tokens  # in waves of 16 it would be about 3 times as many


def test_long_responses_outlive_their_room(tiny: type, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, prompts = tiny.policy("mistral"), tiny.prompts(*LENGTHS)
    expected = LocalSampler(policy, seed=0).sample(
        prompts, Sampling(max_tokens=50), num=1, first_id=0
    )
    monkeypatch.setattr("reasontrain.sampler.local.ROOM", 7)
    monkeypatch.setattr("reasontrain.sampler.local.PREFILL_TOKENS", 20)
    monkeypatch.setattr("reasontrain.sampler.local.CHUNK_LOGITS", 600)
    found = LocalSampler(policy, seed=0).sample(prompts, Sampling(max_tokens=50), num=1, first_id=0)
    assert [r.response_ids for r in found] == [r.response_ids for r in expected]
    assert (1, 19) in policy.shapes


def test_stop_ids_of_the_model_and_of_the_call(tiny: type) -> None:
    policy = tiny.policy()
    tiny.bias(policy, {tiny.END: 9.0, 65: 9.0, 66: 9.0}, others=-20.0)
    rollouts = LocalSampler(policy, seed=0).sample(
        tiny.prompts(4), Sampling(max_tokens=90, stop_ids=(65,)), num=60, first_id=0
    )
    assert {r.response_ids[-1] for r in rollouts} == {tiny.END, 65}
    assert all(set(r.response_ids[:-1]) <= {66} and not r.truncated for r in rollouts)
    ended = next(r for r in rollouts if r.response_ids[-1] == tiny.END and len(r.response_ids) > 1)
    assert ended.text == "B" * (len(ended.response_ids) - 1)  # special tokens are no text


def test_stop_texts_end_a_response_after_the_token_that_completes_them(tiny: type) -> None:
    policy = tiny.policy()
    tiny.bias(policy, dict.fromkeys(b"abc", 0.0), others=-1e4)
    free, stopped = (
        LocalSampler(policy, seed=0).sample(
            tiny.prompts(4, 7), Sampling(max_tokens=60, stop=stop), num=20, first_id=0
        )
        for stop in ((), ("abc", "cca"))
    )
    for before, after in zip(free, stopped, strict=True):
        ends = [before.text.find(text) + 3 for text in ("abc", "cca") if text in before.text]
        assert after.text == before.text[: min(ends, default=60)]
        assert after.truncated == (not ends)
    assert sum(r.truncated for r in stopped) < len(stopped)


def test_responses_are_cut_at_max_tokens_and_at_the_context(tiny: type) -> None:
    policy = tiny.policy()
    tiny.bias(policy, {tiny.END: -1e4})
    rollouts = LocalSampler(policy, seed=0).sample(
        tiny.prompts(90, 20, tiny.CONTEXT - 1), Sampling(max_tokens=40), num=1, first_id=0
    )
    assert [len(r.response_ids) for r in rollouts] == [6, 40, 1]
    assert all(r.truncated for r in rollouts)


@pytest.mark.parametrize("length", [96, 0])
def test_a_prompt_without_room_is_refused(tiny: type, length: int) -> None:
    with pytest.raises(
        UserError, match=f"problem p{length} has {length} tokens, and the model's context is 96"
    ):
        LocalSampler(tiny.policy(), seed=0).sample(
            tiny.prompts(length), Sampling(max_tokens=4), num=1, first_id=0
        )


def test_training_mode_and_checkpointing_neither_matter_nor_change(tiny: type) -> None:
    policy, prompts = tiny.policy(), tiny.prompts(*LENGTHS)
    expected = LocalSampler(policy, seed=0).sample(
        prompts, Sampling(max_tokens=20), num=1, first_id=0
    )
    policy.model.train()
    recompute_activations(policy.model)
    policy.model.base_model.layers[1].eval()
    modes = [module.training for module in policy.model.modules()]
    assert (
        LocalSampler(policy, seed=0).sample(prompts, Sampling(max_tokens=20), num=1, first_id=0)
        == expected
    )
    assert [module.training for module in policy.model.modules()] == modes
    policy.model.train()
    policy.hidden(
        tensor([[1, 2, 3]])
    ).sum().backward()  # sampling left nothing that autograd cannot use


def test_bf16_agrees_with_its_own_forward(tiny: type) -> None:
    policy, prompts = tiny.policy(dtype=torch.bfloat16), tiny.prompts(*LENGTHS)
    rollouts = LocalSampler(policy, seed=0).sample(
        prompts, Sampling(max_tokens=20), num=1, first_id=0
    )
    for rollout in rollouts:
        ids = tensor([[*rollout.prompt_ids, *rollout.response_ids]])
        with torch.no_grad():
            logits_TV = policy.head.logits(
                policy.hidden(ids)[0, len(rollout.prompt_ids) - 1 : -1].float()
            )
        expected = logits_TV.log_softmax(-1).gather(1, tensor(rollout.response_ids)[:, None])[:, 0]
        torch.testing.assert_close(
            tensor(rollout.sampled_logp), expected, rtol=0, atol=0.15
        )  # 8 bits of mantissa, logits near 6


def renamed(policy: Policy) -> Iterator[tuple[str, Tensor]]:
    """Its weights, doubled."""
    return ((name, 2 * tensor) for name, tensor in policy.model.named_parameters())


def test_load_copies_and_keeps_the_version(tiny: type) -> None:
    policy, learner = tiny.policy(), tiny.policy()
    sampler = LocalSampler(policy, seed=0)
    assert isinstance(sampler, Sampler)
    sampler.load(Weights(version=4, tensors=lambda: renamed(learner)))
    assert sampler.version == 4
    for ours, theirs in zip(policy.model.parameters(), learner.model.parameters(), strict=True):
        assert torch.equal(ours, 2 * theirs)
        assert ours.data_ptr() != theirs.data_ptr()
    sampler.load(
        Weights(version=5, tensors=policy.model.named_parameters)
    )  # its own: nothing to copy
    assert sampler.version == 5


def test_load_refuses_weights_of_another_model(tiny: type) -> None:
    sampler = LocalSampler(tiny.policy(), seed=0)
    with pytest.raises(AssertionError, match=r"no weight model\.other"):
        sampler.load(Weights(version=1, tensors=lambda: iter([("model.other", torch.zeros(1))])))
    with pytest.raises(AssertionError, match="no weights came for"):
        sampler.load(Weights(version=1, tensors=lambda: iter([])))
    assert sampler.version == 0
