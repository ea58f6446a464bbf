"""The reference learner against plain transformers logits and float64 sums; what may not change a
gradient does not.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import integers, sampled_from
from torch import Tensor
from torch.testing import assert_close

from reasontrain.algo.loss_aggregation import LOSS_AGGREGATIONS
from reasontrain.algo.objectives import (
    Cispo,
    Distill,
    Dpo,
    EntropyAwareDistill,
    Grpo,
    KlCov,
    Nll,
    Objective,
    Reinforce,
    SampledDistill,
)
from reasontrain.algo.token_selection import (
    AllTokens,
    FireOpd,
    Random,
    ShuffledWeights,
    SsToken,
    Tip,
    TopEntropy,
)
from reasontrain.data.micro_batches import Layout
from reasontrain.learner.factory import compose_learner
from reasontrain.learner.history import FrozenHistory
from reasontrain.learner.lora import adapt
from reasontrain.learner.policy_learner import PolicyLearner
from reasontrain.learner.policy_module import UnshardedModel
from reasontrain.models import Lora, Policy
from reasontrain.recipe import LearnSettings
from reasontrain.types import Batch, UserError
from reasontrain.vocab import Vocabulary
from tests.tiny import ARCHITECTURES, VOCABULARY, batch, pairs, policy

OBJECTIVES = {
    "nll": Nll(),
    "reverse_kl": Distill(),
    "forward_kl": Distill(divergence="forward_kl"),
    "jsd": Distill(divergence="jsd", beta=0.3),
    "grpo": Grpo(reference_kl=0.1),
    "reinforce": Reinforce(reference_kl=0.1),
    "sampled_distill": SampledDistill(),
    "entropy_aware_distill": EntropyAwareDistill(),
    "kl_cov": KlCov(share=0.1, old_kl=0.3),
    "cispo": Cispo(reference_kl=0.1, kl_estimator="k3_ratio", entropy_bonus=0.1),
}
SELECTORS = {
    "all": AllTokens(),
    "random": Random(keep_ratio=0.4),
    "top_entropy": TopEntropy(keep_ratio=0.4),
    "shuffled": ShuffledWeights(of=TopEntropy(keep_ratio=0.4)),
    "sstoken": SsToken(keep_ratio=0.4, warmup=0.0),
    "fire_opd": FireOpd(),
    **{
        mode: Tip(mode=mode, keep_ratio=0.4)
        for mode in (
            "soft_or",
            "q3",
            "entropy_sample",
            "entropy_topk",
            "divergence",
            "bottom",
            "teachability",
            "compatibility",
        )
    },
}


def learner(
    model: Policy, *, budget: int = 10_000, layout: Layout = "padded", **changes: object
) -> PolicyLearner:
    chosen = LearnSettings(lr=0.05, rollouts_per_step=6, micro_batch_tokens=budget, layout=layout)
    return compose_learner(
        model,
        replace(chosen, **changes),
        steps=10,
        teacher=UnshardedModel(policy("llama", seed=5)),
        reference=UnshardedModel(policy("qwen3", seed=6)),
        history=FrozenHistory(UnshardedModel(policy("qwen3", seed=7))),
    )


def gradients(model: Policy) -> dict[str, Tensor]:
    return {
        name: p.grad.clone() for name, p in model.model.named_parameters() if p.grad is not None
    }


def weights(data: Batch) -> Tensor:
    """Half of the response rows, some with fractional weights."""
    draw = torch.Generator().manual_seed(1)
    keep_BT = torch.rand(data.ids_BT.shape, generator=draw) < 0.5
    return torch.where(
        keep_BT & data.is_response_BT, 0.5 + torch.rand(data.ids_BT.shape, generator=draw), 0.0
    )


def run(
    model: Policy, data: Batch, objective: Objective, weight_BT: Tensor, **options: object
) -> tuple[float, dict[str, Tensor]]:
    used = learner(model, **options)
    model.model.zero_grad()
    stats = used.gradient(data, weight_BT, objective, LOSS_AGGREGATIONS["seq_mean_token_mean"])
    return stats["loss"], gradients(model)


# ---- against plain transformers


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_loss_and_gradient_are_those_of_plain_logits(
    architecture: str, tied: bool, layout: Layout
) -> None:
    model, data = policy(architecture, tied=tied), batch()
    weight_BT = weights(data)
    loss, found = run(model, data, Nll(), weight_BT, layout=layout, budget=60)

    model.model.zero_grad()
    expected = torch.zeros(())
    coefficient_BT = LOSS_AGGREGATIONS["seq_mean_token_mean"](weight_BT, data.totals(weight_BT))
    for row, length in enumerate(data.length_B.tolist()):  # one sequence at a time, without padding
        logp_TV = (
            model.model(data.ids_BT[row : row + 1, :length], use_cache=False)
            .logits[0]
            .log_softmax(-1)
        )
        taken_T = logp_TV[:-1].gather(1, data.ids_BT[row, 1:length, None])[:, 0]
        expected = expected - (coefficient_BT[row, 1:length] * taken_T).sum()
    expected.backward()
    assert loss == pytest.approx(float(expected.detach()), abs=2e-6)
    for name, gradient in gradients(model).items():
        assert_close(found[name], gradient, rtol=1e-4, atol=3e-6, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("attention", [None, "varlen"])
def test_a_packed_batch_equals_separate_sequences(
    architecture: str, checkpointing: bool, training: bool, attention: str | None
) -> None:
    # gemma2 caps its scores, which attention by lengths does not
    name = None if architecture == "gemma2" else attention
    model = policy(architecture, checkpointing=checkpointing, attention=name)
    data = batch(num=4)
    model.model.train(training)
    packed = run(model, data, Nll(), weights(data), layout="packed")
    alone = run(
        model, data, Nll(), weights(data), layout="packed", budget=1
    )  # one sequence per micro-batch
    assert packed[0] == pytest.approx(alone[0], abs=1e-6)
    for name, gradient in alone[1].items():
        assert_close(packed[1][name], gradient, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_packed_batch_of_an_adapted_model_equals_separate_sequences(checkpointing: bool) -> None:
    data = batch(num=4)
    results = []
    for budget, attention in ((10_000, "varlen"), (1, "sdpa")):
        model = policy(checkpointing=checkpointing, attention=attention)
        adapt(model, Lora(rank=4, alpha=8.0))
        draw = torch.Generator().manual_seed(1)
        for name, parameter in model.model.named_parameters():
            if "lora_B" in name:  # zero at the start, which would hide half of the gradients
                parameter.data = 0.1 * torch.randn(parameter.shape, generator=draw)
        results.append(run(model, data, Nll(), weights(data), layout="packed", budget=budget))
    (packed, packed_gradients), (alone, alone_gradients) = results
    assert packed == pytest.approx(alone, rel=1e-6)
    assert packed_gradients.keys() == alone_gradients.keys()
    assert all("lora_" in name for name in packed_gradients)
    for name, gradient in alone_gradients.items():
        assert float((packed_gradients[name] - gradient).norm()) <= 1e-5 * float(gradient.norm())


# ---- the six promises


@pytest.mark.parametrize("name", OBJECTIVES)
@settings(max_examples=8)
@given(
    seed=integers(0, 10_000),
    budget=integers(1, 200),
    layout=sampled_from(["padded", "packed"]),
    pad=integers(0, 5),
)
def test_micro_batches_padding_and_packing_never_change_the_gradient(
    name: str, seed: int, budget: int, layout: Layout, pad: int
) -> None:
    model, data = policy(seed=1), batch(seed=seed)
    wide = replace(
        data,
        ids_BT=torch.nn.functional.pad(data.ids_BT, (0, pad)),
        kind_BT=torch.nn.functional.pad(data.kind_BT, (0, pad)),
        evidence={
            key: torch.nn.functional.pad(column, (0, pad)) for key, column in data.evidence.items()
        },
    )
    weight_BT = weights(data)
    whole = run(model, data, OBJECTIVES[name], weight_BT)
    pack_micro_batches = run(
        model,
        wide,
        OBJECTIVES[name],
        torch.nn.functional.pad(weight_BT, (0, pad)),
        budget=budget,
        layout=layout,
    )
    # float32 rounds a loss of 17 nats, as of `sampled_distill`, to 2e-6
    assert pack_micro_batches[0] == pytest.approx(whole[0], rel=2e-7, abs=1e-6)
    for key, gradient in whole[1].items():
        assert_close(pack_micro_batches[1][key], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rule", SELECTORS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_rule_feeds_every_objective_and_an_order_of_rollouts_changes_nothing(
    rule: str, name: str
) -> None:
    model, data, token_selection, objective = (
        policy(seed=2),
        batch(seed=3),
        SELECTORS[rule],
        OBJECTIVES[name],
    )
    permuted = data.take(torch.tensor([3, 5, 0, 4, 1, 2]))
    results = []
    for order in (data, permuted):
        used = learner(model, budget=50)
        model.model.zero_grad()
        seen = used.observe(order, token_selection.required_evidence)
        stats = used.gradient(
            seen, token_selection(seen), objective, LOSS_AGGREGATIONS["token_mean"]
        )
        results.append((stats["loss"], gradients(model)))
    assert results[0][0] != 0
    assert results[0][0] == pytest.approx(
        results[1][0], rel=1e-6, abs=1e-6
    )  # a few roundings of a sum in another order
    for key, gradient in results[0][1].items():
        assert_close(results[1][1][key], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_row_without_weight_does_nothing_even_where_the_teacher_is_infinite(name: str) -> None:
    model, data = policy(seed=1), batch()
    weight_BT = weights(data)
    used = learner(model)
    used.observe(data, frozenset({"kl_reverse"}))
    clean = used.gradient(
        data, weight_BT, OBJECTIVES[name], LOSS_AGGREGATIONS["seq_mean_token_mean"]
    )
    before = gradients(model)
    model.model.zero_grad()
    for row, rollout in enumerate(
        data.rollout_B.tolist()
    ):  # an overflow at every row that is not selected
        unused_N = (weight_BT[row] == 0)[data.is_response_BT[row]]
        used.observer.teacher_states.hidden[0][rollout][1][unused_N] = float("inf")
    broken = data.with_evidence(
        {"old_logp": torch.where(weight_BT == 0, -torch.inf, data.old_logp_BT)}
    )
    again = used.gradient(
        broken, weight_BT, OBJECTIVES[name], LOSS_AGGREGATIONS["seq_mean_token_mean"]
    )
    assert again == clean
    for key, gradient in before.items():
        assert torch.equal(gradients(model)[key], gradient)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_nothing_selected_is_a_step_that_changes_nothing(name: str) -> None:
    model, data = policy(), batch()
    used = learner(model)
    used.step(
        data, data.is_response_BT.float(), OBJECTIVES[name], LOSS_AGGREGATIONS["token_mean"]
    )  # the optimiser has momentum now
    before = {key: value.clone() for key, value in model.model.state_dict().items()}
    stats = used.step(
        data, torch.zeros(data.ids_BT.shape), OBJECTIVES[name], LOSS_AGGREGATIONS["token_mean"]
    )
    assert (stats["loss"], stats["kept_share"], stats["skipped"]) == (0.0, 0.0, 0.0)
    assert all(torch.equal(before[key], value) for key, value in model.model.state_dict().items())


def test_the_kept_teacher_states_are_those_of_a_fresh_forward() -> None:
    data = batch()
    weight_BT = weights(data)
    for layout in ("padded", "packed"):
        models = [policy(seed=1), policy(seed=1)]
        results = []
        for model, observed in zip(models, (True, False), strict=True):
            used = learner(model, budget=50, layout=layout)
            if observed:
                used.observe(data, frozenset({"kl_reverse"}))
            used.gradient(data, weight_BT, Distill(), LOSS_AGGREGATIONS["token_mean"])
            results.append(gradients(model))
        assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])


def test_constant_divergence_gives_a_loss_that_does_not_depend_on_how_much_is_kept() -> None:
    """TIP sheet, test 4: dividing by all tokens instead of the kept ones would halve it."""
    model, data = policy(seed=1), batch()
    for parameter in [*model.model.parameters()]:
        torch.nn.init.zeros_(
            parameter
        )  # uniform p at every row, so KL(p || q) is the same wherever q is
    used = learner(model)
    (teacher,) = used.observer.teacher_states.models
    head = teacher.policy.model.lm_head
    torch.nn.init.zeros_(head.weight)
    head.bias = torch.nn.Parameter(torch.linspace(0, 3, VOCABULARY))
    losses = []
    for keep in (0.1, 0.5, 1.0):
        seen = used.observe(data, Tip(keep_ratio=keep).required_evidence)
        weight_BT = Tip(keep_ratio=keep)(seen)
        losses.append(
            used.gradient(seen, weight_BT, Distill(), LOSS_AGGREGATIONS["seq_mean_token_mean"])[
                "loss"
            ]
        )
    assert losses[0] > 0.1
    assert losses == pytest.approx([losses[0]] * 3, abs=1e-6)


@pytest.mark.parametrize(
    "mode",
    [
        "soft_or",
        "q3",
        "entropy_sample",
        "entropy_topk",
        "divergence",
        "bottom",
        "teachability",
        "compatibility",
    ],
)
def test_tip_that_keeps_everything_is_plain_distillation(mode: str) -> None:
    data = batch()
    results = []
    for token_selection in (AllTokens(), Tip(mode=mode, keep_ratio=1.0)):
        model = policy(seed=1)
        used = learner(model)
        seen = used.observe(
            data,
            frozenset({"entropy", "kl_reverse", "kl_forward", "compatibility", "disagreement"}),
        )
        loss = used.gradient(
            seen, token_selection(seen), Distill(), LOSS_AGGREGATIONS["seq_mean_token_mean"]
        )["loss"]
        results.append((loss, gradients(model)))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(results[0][1][key], results[1][1][key]) for key in results[0][1])


# ---- evidence


def disagreement(p: Tensor, q: Tensor, num: int) -> Tensor:
    """KL(q || p) over the union of both top sets, renormalised there."""
    among = torch.zeros_like(p, dtype=torch.bool)
    for model in (p, q):
        among.scatter_(1, model.topk(num).indices, True)
    p, q = (m.masked_fill(~among, -1e30).log_softmax(-1) for m in (p, q))
    return (q.exp() * (q - p)).sum(-1)


def place(logs: Tensor, ids: Tensor) -> Tensor:
    """Position of each id in its row, likeliest first, from 1."""
    return (logs.argsort(-1, descending=True) == ids[:, None]).double().argmax(-1).double() + 1


def test_evidence_is_that_of_plain_logits_in_float64() -> None:
    model, data = policy(), batch()
    used = learner(model, budget=60)
    seen = used.observe(
        data,
        frozenset(
            {
                "entropy",
                "kl_reverse",
                "kl_forward",
                "old_logp",
                "ref_logp",
                "compatibility",
                "disagreement",
                "teacher_entropy",
                "teacher_logp",
                "teacher_rank_of_argmax",
                "sampled_rank",
                "entropy_top20",
            }
        ),
    )
    (teacher,) = used.observer.teacher_states.models
    for row, length in enumerate(data.length_B.tolist()):
        ids = data.ids_BT[row : row + 1, :length]
        p, q, r = (
            m.model(ids, use_cache=False).logits[0, :-1].double().log_softmax(-1)
            for m in (model, teacher.policy, used.observer.reference.policy)
        )
        top = p.topk(16, dim=-1).indices
        likeliest = p.topk(20, dim=-1).values.log_softmax(-1)
        expected = {
            "entropy": -(p.exp() * p).sum(-1),
            "kl_reverse": (p.exp() * (p - q)).sum(-1),
            "kl_forward": (q.exp() * (q - p)).sum(-1),
            "old_logp": p.gather(1, ids[0, 1:, None])[:, 0],
            "ref_logp": r.gather(1, ids[0, 1:, None])[:, 0],
            "compatibility": q.exp().gather(1, top).sum(-1),
            "disagreement": disagreement(p, q, 16),
            "teacher_entropy": -(q.exp() * q).sum(-1),
            "teacher_logp": q.gather(1, ids[0, 1:, None])[:, 0],
            "teacher_rank_of_argmax": place(q, p.argmax(-1)),
            "sampled_rank": place(p, ids[0, 1:]),
            "entropy_top20": -(likeliest.exp() * likeliest).sum(-1),
        }
        among = data.is_response_BT[row, 1:length]
        for name, values in expected.items():
            assert_close(
                seen.evidence[name][row, 1:length][among],
                values[among].float(),
                rtol=1e-4,
                atol=2e-5,
            )
            assert (seen.evidence[name][row][~data.is_response_BT[row]] == 0).all()


def test_the_first_ratio_is_one() -> None:
    model, data = policy(), batch()
    used = learner(model, budget=40)
    seen = used.observe(replace(data, evidence={}), frozenset({"old_logp"}))
    weight_BT = data.is_response_BT.float()
    stats = used.gradient(seen, weight_BT, Grpo(), LOSS_AGGREGATIONS["token_mean"])
    assert stats["ratio"] == pytest.approx(1.0, abs=1e-5)
    assert stats["clipped"] == 0


# ---- the optimiser's step


def test_a_gradient_that_is_not_finite_skips_the_step_and_those_in_a_row_are_counted() -> None:
    model, data = policy(), batch()
    used = learner(model)
    weight_BT = data.is_response_BT.float()
    bad = replace(data, advantage_B=torch.full_like(data.advantage_B, float("nan")))
    before = {key: value.clone() for key, value in model.model.state_dict().items()}
    step = lambda what: used.step(what, weight_BT, Reinforce(), LOSS_AGGREGATIONS["token_mean"])  # noqa: E731
    assert [step(bad)["skipped"], step(bad)["skipped"]] == [1.0, 1.0]
    assert all(torch.equal(before[key], value) for key, value in model.model.state_dict().items())
    assert (
        step(replace(data, evidence={}))["skipped"] == 0.0
    )  # a good one in between starts the count anew
    assert [step(bad)["nonfinite_in_a_row"] for _ in range(3)] == [1.0, 2.0, 3.0]
    assert step(replace(data, evidence={}))["nonfinite_in_a_row"] == 0.0


def test_a_bfloat16_head_gives_its_float32_master_an_unrounded_gradient_whatever_the_cut() -> None:
    data = batch()
    weight_BT = data.is_response_BT.float()
    found = []
    for budget in (10_000, 30):
        model = policy()
        model.dtype = torch.bfloat16
        used = learner(model, budget=budget)
        used.gradient(data, weight_BT, Nll(), LOSS_AGGREGATIONS["token_mean"])
        found.append(model.model.lm_head.weight.grad)
    assert found[0].dtype == torch.float32
    assert not torch.equal(found[0], found[0].bfloat16().float())
    plain = policy()
    learner(plain).gradient(data, weight_BT, Nll(), LOSS_AGGREGATIONS["token_mean"])
    for gradient in found:
        error = (
            gradient - plain.model.lm_head.weight.grad
        ).norm() / plain.model.lm_head.weight.grad.norm()
        assert 0 < error < 0.02  # bfloat16 has eight bits


def test_clipping_scales_the_gradient_to_the_norm() -> None:
    model, data = policy(), batch()
    moved = {}
    for limit in (None, 1e-3):
        model = policy()
        used = learner(model, max_grad_norm=limit)
        used.engine.optimizer.step = lambda share: None  # only the gradient is of interest
        used.engine.optimizer.zero_grad = lambda: None
        stats = used.step(data, data.is_response_BT.float(), Nll(), LOSS_AGGREGATIONS["token_mean"])
        moved[limit] = (stats["grad_norm"], gradients(model))
    assert moved[None][0] == moved[1e-3][0] > 0.1
    for key, gradient in moved[None][1].items():
        assert_close(moved[1e-3][1][key], gradient * 1e-3 / moved[None][0], rtol=1e-4, atol=1e-9)


@pytest.mark.filterwarnings(
    "ignore:invalid value encountered in subtract"
)  # Triton's interpreter, of -inf - -inf
@pytest.mark.parametrize("vocabulary", ["full_logits", "triton"])
@pytest.mark.parametrize(
    ("name", "architecture"), [("reverse_kl", "qwen3"), ("grpo", "gemma2"), ("dpo", "qwen3")]
)
def test_a_step_does_not_depend_on_what_computes_the_vocabulary(
    name: str, architecture: str, vocabulary: Vocabulary
) -> None:
    """Evidence, loss, and the gradient and its norm of a whole step."""
    if vocabulary == "triton":
        pytest.importorskip("triton", reason="Triton is for Linux")
        if torch.cuda.is_available():
            pytest.skip("these models lie on the CPU, and kernels are compiled here")
    objective: Objective = Dpo() if name == "dpo" else OBJECTIVES[name]
    data = pairs() if name == "dpo" else batch(num=4, width=12)
    data = replace(
        data,
        evidence={name: column for name, column in data.evidence.items() if name != "old_logp"},
    )
    found = []
    for choice in ("auto", vocabulary):
        model = policy(architecture)
        model.vocabulary = choice
        used = learner(model, lr=1e-3)
        required_evidence = (
            objective.required_evidence
            | Tip().required_evidence
            | {"ref_logp", "old_logp", "history_logp", "compatibility", "disagreement"}
            | {"teacher_entropy", "teacher_logp", "entropy_top20"}
        )
        seen = used.observe(data, required_evidence)
        weight_BT = data.is_response_BT.float()
        used.gradient(
            seen,
            weight_BT,
            objective,
            LOSS_AGGREGATIONS["pair_mean" if name == "dpo" else "seq_mean_token_mean"],
        )
        gradient = gradients(model)
        model.model.zero_grad()
        stats = used.step(
            seen,
            weight_BT,
            objective,
            LOSS_AGGREGATIONS["pair_mean" if name == "dpo" else "seq_mean_token_mean"],
        )
        found.append(
            (
                {need: seen.evidence[need] for need in required_evidence},
                gradient,
                stats["loss"],
                stats["grad_norm"],
            )
        )
        assert model.head.vocabulary == choice
    assert_close(*found, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_saved_and_restored_it_goes_on_bit_for_bit(kind: str, tmp_path) -> None:
    from reasontrain.recipe import AdamW, Muon

    optimizer = {"adamw": AdamW(weight_decay=0.1), "muon": Muon()}[kind]
    data = batch()

    def step(used: PolicyLearner) -> float:
        return used.step(data, data.is_response_BT.float(), Nll(), LOSS_AGGREGATIONS["token_mean"])[
            "loss"
        ]

    straight = learner(policy(), optimizer=optimizer, schedule="cosine", warmup_steps=1)
    expected = [step(straight) for _ in range(4)]
    first = learner(policy(), optimizer=optimizer, schedule="cosine", warmup_steps=1)
    losses = [step(first), step(first)]
    first.save(tmp_path)
    second = learner(policy(seed=9), optimizer=optimizer, schedule="cosine", warmup_steps=1)
    second.restore(tmp_path)
    losses += [step(second), step(second)]
    assert losses == expected
    for (name, a), (_, b) in zip(
        straight.weights().tensors(), second.weights().tensors(), strict=True
    ):
        assert torch.equal(a, b), name
    assert second.weights().version == 4


def test_a_directory_without_state_is_refused(tmp_path) -> None:
    with pytest.raises(UserError, match=r"has no layout.json, so it is no checkpoint that this"):
        learner(policy()).restore(tmp_path)
