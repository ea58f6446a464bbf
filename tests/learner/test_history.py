"""The history model in a learner, the attention it observes, and what ssToken makes of both (checks
1, 6 to 9 of its sheet).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.testing import assert_close

from reasontrain.algo.loss_aggregation import LOSS_AGGREGATIONS
from reasontrain.algo.objectives import Nll
from reasontrain.algo.token_selection import AllTokens, SsToken, TokenSelection
from reasontrain.algo.token_selection.scores.excess_loss import width
from reasontrain.data.micro_batches import Layout
from reasontrain.learner.factory import compose_learner, make_learner
from reasontrain.learner.history import (
    HISTORY_FILE,
    AdaptersOffHistory,
    FrozenHistory,
    History,
    MovingAverageHistory,
)
from reasontrain.learner.lora import adapt
from reasontrain.learner.policy_learner import PolicyLearner
from reasontrain.learner.policy_module import UnshardedModel
from reasontrain.learner.rounding import EXCESS_LOSS, full_precision
from reasontrain.models import Importance, Lora, Policy
from reasontrain.recipe import LearnSettings, read_recipe
from reasontrain.types import Batch, UserError
from tests.tiny import batch, policy

RULE = SsToken(keep_ratio=0.5, warmup=0.0, gate=0.0)
TINY = Path(__file__).parents[2] / "recipes" / "tiny" / "sstoken.yaml"


def fresh(data: Batch) -> Batch:
    """Without evidence of other tests."""
    return replace(data, evidence={})


def start(seed: int = 1) -> Policy:
    """The weights before the first step, frozen."""
    model = policy(seed=seed)
    model.model.requires_grad_(False).eval()
    return model


def adapted(seed: int = 1) -> Policy:
    model = policy(seed=seed)
    adapt(model, Lora(rank=4, alpha=8.0))
    return model


def learner(
    model: Policy,
    history: History | None = None,
    *,
    budget: int = 10_000,
    layout: Layout = "padded",
    importance: Importance | None = None,
) -> PolicyLearner:
    chosen = LearnSettings(lr=0.05, rollouts_per_step=6, micro_batch_tokens=budget, layout=layout)
    return compose_learner(
        model,
        chosen,
        steps=10,
        history=history or FrozenHistory(UnshardedModel(start())),
        importance=importance,
    )


def step(
    used: PolicyLearner, seed: int, rule: TokenSelection = RULE
) -> tuple[float, dict[str, Tensor]]:
    """One step of the whole method: its loss and its evidence."""
    seen = used.observe(fresh(batch(seed=seed)), rule.required_evidence)
    return used.step(seen, rule(seen), Nll(), LOSS_AGGREGATIONS["token_mean"])["loss"], dict(
        seen.evidence
    )


def gradients(model: Policy) -> dict[str, Tensor]:
    return {
        name: p.grad.clone() for name, p in model.model.named_parameters() if p.grad is not None
    }


def weights(used: PolicyLearner) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in used.weights().tensors()}


# ---- check 1: all of it is plain fine-tuning


@pytest.mark.parametrize("loss_aggregation", ["token_mean", "seq_mean_token_mean"])
def test_keeping_everything_is_plain_fine_tuning(loss_aggregation: str) -> None:
    found = []
    for rule in (AllTokens(), SsToken(keep_ratio=1.0, warmup=0.0, gate=0.0)):
        model = policy(seed=2)
        used = learner(model, budget=60)
        data = fresh(batch())
        seen = used.observe(data, rule.required_evidence) if rule.required_evidence else data
        loss = used.gradient(seen, rule(seen), Nll(), LOSS_AGGREGATIONS[loss_aggregation])["loss"]
        found.append((loss, gradients(model)))
    (plain, expected), (ours, gradient) = found
    assert ours == pytest.approx(plain, abs=1e-6)
    for name, value in expected.items():
        assert_close(gradient[name], value, rtol=0, atol=1e-6)


# ---- check 6: attention, as the learner observes it


@torch.no_grad()
def eager(model: Policy, data: Batch, row: int, first: int) -> Tensor:
    """Of one sequence alone, at each token's own position: the mean over heads of what goes to
    prompt tokens from `first` on.
    """
    length = int(data.length_B[row])
    model.model.set_attn_implementation("eager")
    output = model.model(
        data.ids_BT[row : row + 1, :length], use_cache=False, output_attentions=True
    )
    model.model.set_attn_implementation("sdpa")
    prompt = (data.kind_BT[row, :length] == 1) & (torch.arange(length) >= first)
    return output.attentions[-1][0][..., prompt].sum(-1).mean(0)


@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize("budget", [1, 60, 10_000])
@pytest.mark.parametrize("first", [0, 1])
def test_attention_is_that_of_eager_softmax_in_every_layout(
    layout: Layout, budget: int, first: int
) -> None:
    model, data = policy(seed=2), fresh(batch())
    used = learner(model, budget=budget, layout=layout, importance=Importance(skip_first=first))
    found_BT = used.observe(data, frozenset({"attention"})).attention_BT
    for row in range(len(data.rollout_B)):
        among = data.is_response_BT[row, : data.length_B[row]]
        assert_close(
            found_BT[row, : len(among)][among],
            eager(model, data, row, first)[among],
            rtol=0,
            atol=1e-5,
        )
    assert (found_BT[~data.is_response_BT] == 0).all()


def test_checkpointed_layers_and_adapters_say_the_same() -> None:
    data, wanted = fresh(batch()), frozenset({"attention", "old_logp"})
    seen = [
        learner(model).observe(data, wanted).evidence
        for model in (policy(seed=1), policy(seed=1, checkpointing=True), adapted())
    ]
    for other in seen[1:]:
        for name in wanted:
            assert_close(other[name], seen[0][name], rtol=0, atol=1e-6)


# ---- check 7: three ways to the same history


def test_before_the_first_step_nothing_has_been_gained() -> None:
    for used in (
        learner(policy(seed=1)),
        learner(model := adapted(), AdaptersOffHistory(model.model)),
    ):
        seen = used.observe(fresh(batch()), RULE.required_evidence)
        assert torch.equal(seen.old_logp_BT, seen.history_logp_BT)
        assert seen.old_logp_BT.abs().max() > 1


def test_adapters_off_a_copy_and_a_stored_column_say_the_same() -> None:
    model = adapted()
    used = learner(model, AdaptersOffHistory(model.model), budget=60)
    stored = (
        learner(policy(seed=1), budget=60)
        .observe(fresh(batch(seed=5)), frozenset({"old_logp"}))
        .old_logp_BT
    )
    for seed in range(3):
        step(used, seed)
    data = fresh(batch(seed=5))
    off = used.observe(data, RULE.required_evidence)
    copied = learner(model, budget=60).observe(data, RULE.required_evidence)
    assert torch.equal(off.history_logp_BT, copied.history_logp_BT)
    assert torch.equal(off.history_logp_BT, stored)
    gained_BT = off.old_logp_BT - off.history_logp_BT
    assert gained_BT.abs().max() > 0.1  # the adapters were on again for the policy
    assert torch.equal(gained_BT, copied.old_logp_BT - copied.history_logp_BT)


def test_switching_adapters_off_leaves_training_alone() -> None:
    found = []
    for observed in (True, False):
        model = adapted()
        used = learner(model, AdaptersOffHistory(model.model))
        data = fresh(batch())
        for _ in range(2):
            if observed:
                used.observe(data, frozenset({"history_logp"}))
            used.step(data, data.is_response_BT.float(), Nll(), LOSS_AGGREGATIONS["token_mean"])
        found.append(weights(used))
        assert all(
            p.requires_grad == ("lora_" in name) for name, p in model.model.named_parameters()
        )
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


# ---- check 8: what is not selected


def test_a_row_that_is_not_selected_has_no_gradient_and_still_is_context(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, data = policy(seed=2), fresh(batch())
    used = learner(model)
    seen = used.observe(data, RULE.required_evidence)
    weight_BT = RULE(seen)
    states: list[Tensor] = []
    plain = model.hidden

    def hidden(*args: object, **given: object) -> Tensor:
        states.append(plain(*args, **given))
        states[-1].retain_grad()
        return states[-1]

    monkeypatch.setattr(model, "hidden", hidden)
    before = used.gradient(data, weight_BT, Nll(), LOSS_AGGREGATIONS["token_mean"])["loss"]
    predicts_BT = torch.zeros_like(data.is_response_BT)
    predicts_BT[:, :-1] = weight_BT[:, 1:] != 0
    length_B = data.length_B.argsort(
        descending=True, stable=True
    )  # the order of rollouts in the one micro-batch
    moved_BT = states[0].grad.abs().sum(-1) > 0
    assert torch.equal(moved_BT, predicts_BT[length_B, : moved_BT.shape[1]])

    row, token = next(
        (row, token)
        for row, token in (data.is_response_BT & (weight_BT == 0)).nonzero().tolist()
        if weight_BT[row, token + 1 :].any() and weight_BT[row, token] == 0
    )
    ids_BT = data.ids_BT.clone()
    ids_BT[row, token] = 3 + (ids_BT[row, token] + 1) % 50
    after = used.gradient(
        replace(data, ids_BT=ids_BT), weight_BT, Nll(), LOSS_AGGREGATIONS["token_mean"]
    )["loss"]
    assert abs(after - before) > 1e-4


# ---- check 9: the cut


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_one_micro_batch_or_four_is_one_step(layout: Layout) -> None:
    found = []
    for budget, parts in ((10_000, 1), (30 if layout == "padded" else 24, 4)):
        model = policy(seed=2)
        used = learner(model, budget=budget, layout=layout)
        data = fresh(batch())
        assert sum(len(part.micro_batches) for part in used.mini_batches(data)) == parts
        seen = used.observe(data, RULE.required_evidence)
        weight_BT = RULE(seen)
        loss = used.gradient(seen, weight_BT, Nll(), LOSS_AGGREGATIONS["token_mean"])["loss"]
        found.append((weight_BT, loss, gradients(model)))
    (weight_BT, loss, gradient), (cut_BT, cut_loss, cut_gradient) = found
    assert torch.equal(weight_BT, cut_BT)
    assert cut_loss == pytest.approx(loss, abs=1e-6)
    for name, value in gradient.items():
        assert_close(cut_gradient[name], value, rtol=1e-4, atol=1e-6)


# ---- a moving average


@pytest.mark.parametrize("lora", [False, True])
def test_an_average_follows_the_policy(lora: bool) -> None:
    model = adapted() if lora else policy(seed=1)
    used = learner(model, MovingAverageHistory(start(), 0.75))
    expected = weights(used)
    for seed in range(3):
        step(used, seed)
        expected = {name: 0.75 * expected[name] + 0.25 * now for name, now in weights(used).items()}
    assert isinstance(used.observer.history, MovingAverageHistory)
    for name, weight in used.observer.history.weights.items():
        assert_close(weight, expected[name], rtol=1e-6, atol=1e-7)
    plain = policy()
    plain.model.load_state_dict(expected)
    data = fresh(batch(seed=9))
    measured = learner(plain).observe(data, frozenset({"old_logp"})).old_logp_BT
    assert_close(
        used.observe(data, frozenset({"history_logp"})).history_logp_BT, measured, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("lora", [False, True])
def test_restored_with_its_average_it_goes_on_bit_for_bit(lora: bool, tmp_path: Path) -> None:
    def begin(seed: int) -> PolicyLearner:
        return learner(
            adapted() if lora else policy(seed=seed), MovingAverageHistory(start(seed), 0.75)
        )

    straight = begin(1)
    expected = [step(straight, seed)[0] for seed in range(4)]
    first = begin(1)
    losses = [step(first, seed)[0] for seed in range(2)]
    first.save(tmp_path)
    second = begin(1 if lora else 7)
    second.restore(tmp_path)
    losses += [step(second, seed)[0] for seed in (2, 3)]
    assert losses == expected
    assert isinstance(straight.observer.history, MovingAverageHistory)
    assert isinstance(second.observer.history, MovingAverageHistory)
    assert all(
        torch.equal(weight, second.observer.history.weights[name])
        for name, weight in straight.observer.history.weights.items()
    )


def test_what_stays_is_not_written(tmp_path: Path) -> None:
    learner(policy(seed=1)).save(tmp_path)
    assert not (tmp_path / HISTORY_FILE).exists()
    learner(policy(seed=1), MovingAverageHistory(start(), 0.5)).save(tmp_path)
    assert (
        load_file(tmp_path / HISTORY_FILE).keys() == dict(policy().model.named_parameters()).keys()
    )


# ---- by recipe


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("overrides", "kind"),
    [
        ([], FrozenHistory),
        (["history={kind: ema, decay: 0.9}"], MovingAverageHistory),
        (["history={kind: checkpoint, path: 'testbed:student'}"], FrozenHistory),
        (["model.lora={rank: 4}"], AdaptersOffHistory),
        (["model.lora={rank: 4}", "history={kind: ema}"], MovingAverageHistory),
    ],
    ids=["start", "ema", "checkpoint", "adapters off", "ema of adapters"],
)
def test_each_history_is_the_start_weights_at_the_start(
    overrides: list[str], kind: type[History], dtype: str
) -> None:
    used = make_learner(read_recipe(TINY, [*overrides, f"model.dtype={dtype}"]))
    assert type(used.observer.history) is kind
    seen = used.observe(fresh(batch(vocab_size=400)), RULE.required_evidence)
    assert torch.equal(
        seen.old_logp_BT, seen.history_logp_BT
    )  # also in bfloat16, which rounds both alike


def test_another_checkpoint_is_another_history_and_what_is_none_is_refused(tmp_path: Path) -> None:
    used = make_learner(read_recipe(TINY, ["history={kind: checkpoint, path: 'testbed:noisy'}"]))
    seen = used.observe(fresh(batch(vocab_size=400)), RULE.required_evidence)
    other = make_learner(read_recipe(TINY, ["model.path=testbed:noisy"])).observe(
        seen, frozenset({"old_logp"})
    )
    assert_close(seen.history_logp_BT, other.old_logp_BT, rtol=0, atol=1e-6)
    with pytest.raises(UserError, match=r"holds no model"):
        make_learner(read_recipe(TINY, [f"history={{kind: checkpoint, path: {tmp_path}}}"]))


def test_a_rule_that_asks_for_neither_has_no_second_model() -> None:
    assert (
        type(
            make_learner(
                read_recipe(TINY, ["token_selection={kind: sstoken, gamma: 0.0}"])
            ).observer.history
        )
        is History
    )


def test_a_model_whose_attention_cannot_be_seen_is_refused_before_anything_else() -> None:
    with pytest.raises(UserError, match=r"importance.layer is -9, and the model has"):
        make_learner(read_recipe(TINY, ["importance.layer=-9"]))


# ---- rounding of excess loss


def in_bfloat16(lora: float, *, dtype: torch.dtype = torch.bfloat16) -> PolicyLearner:
    """A policy whose adapters are of this size, compared with itself without them."""
    model = adapted()
    draw = torch.Generator().manual_seed(0)
    for name, parameter in model.model.named_parameters():
        if "lora_B" in name:
            parameter.data = lora * torch.randn(parameter.shape, generator=draw)
    model.dtype = dtype
    return learner(model, AdaptersOffHistory(model.model))


def num_gated(used: PolicyLearner, rule: SsToken) -> tuple[int, int, Batch]:
    """Number of rollouts that pass the fixed gate, and that pass the measured one."""
    seen = used.observe(fresh(batch(num=24)), rule.required_evidence | {"old_logp", "history_logp"})
    gain_BT = seen.old_logp_BT - seen.history_logp_BT
    span_B1 = width(gain_BT, seen.is_response_BT)
    gate = float(seen.excess_noise_BT.max())
    return int((span_B1 >= rule.gate).sum()), int((span_B1 >= max(rule.gate, gate)).sum()), seen


def test_no_rollout_passes_the_gate_on_rounding(tmp_path: Path) -> None:
    """Adapters of size 1e-5 change nothing that bfloat16 can hold; those of size 0.3 do."""
    rule = SsToken(keep_ratio=0.5, gamma=1.0, warmup=0.0, gate=0.001)
    tiny = in_bfloat16(1e-5)
    on_rounding, passed, seen = num_gated(tiny, rule)
    assert on_rounding > 6
    assert passed == 0
    attention_only = SsToken(keep_ratio=0.5, gamma=0.0)
    assert torch.equal(rule(seen), attention_only(seen))
    assert num_gated(in_bfloat16(0.3), rule)[1] > 12
    # It is measured once, and a resumed run goes on with the same number.
    again = tiny.observe(fresh(batch(seed=9)), frozenset({"excess_noise"}))
    assert torch.equal(again.excess_noise_BT.unique(), seen.excess_noise_BT.unique())
    tiny.save(tmp_path)
    resumed = in_bfloat16(1e-5)
    resumed.restore(tmp_path)
    assert torch.equal(
        resumed.observe(fresh(batch(seed=9)), frozenset({"excess_noise"})).excess_noise_BT,
        again.excess_noise_BT,
    )
    assert tiny.policy.dtype == torch.bfloat16


def test_float32_has_no_noise_and_weights_in_bfloat16_can_be_measured() -> None:
    rule = SsToken(warmup=0.0)
    wide = in_bfloat16(1e-5, dtype=torch.float32)
    assert float(num_gated(wide, rule)[2].excess_noise_BT.max()) == 0
    narrow = learner(policy())
    narrow.policy.dtype = torch.bfloat16
    narrow.policy.model.bfloat16()  # as ranks keep them
    data = fresh(batch())
    with full_precision([narrow.policy]):
        exact = narrow.observe(data, EXCESS_LOSS)
    assert float(narrow.observe(data, frozenset({"excess_noise"})).excess_noise_BT.max()) > 0
    narrow.policy.model.float()  # the same weights
    narrow.policy.dtype = torch.float32
    same = narrow.observe(data, EXCESS_LOSS)
    for name in EXCESS_LOSS:
        assert_close(exact.evidence[name], same.evidence[name], rtol=1e-5, atol=1e-5)


def test_an_average_of_another_model_is_not_restored(tmp_path: Path) -> None:
    average = MovingAverageHistory(policy(), 0.9)
    average.save(tmp_path)
    stored = load_file(tmp_path / HISTORY_FILE)
    del stored["model.norm.weight"]
    save_file(stored, tmp_path / HISTORY_FILE)
    with pytest.raises(UserError, match=r"1 missing \(model\.norm\.weight\)"):
        average.restore(tmp_path)
