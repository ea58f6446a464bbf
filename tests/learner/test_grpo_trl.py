"""GRPO, GSPO and the 80/20 rule beside TRL's own trainer: the same model, rollouts and old
log-probs give the same gradient.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from torch.testing import assert_close
from trl import GRPOConfig, GRPOTrainer
from trl.rewards import get_soft_overlong_punishment

from reasontrain.algo.correction import Correction, MaskRatio, TruncateRatio
from reasontrain.algo.loss_aggregation import LOSS_AGGREGATIONS
from reasontrain.algo.objectives import Cispo, Grpo, Gspo, Objective
from reasontrain.algo.reward_shaping import Overlong
from reasontrain.algo.token_selection import AllTokens, TokenSelection, TopEntropy
from reasontrain.bench.peers import KEEP_ACTIVATIONS
from reasontrain.learner.factory import compose_learner
from reasontrain.learner.policy_learner import PolicyLearner
from reasontrain.learner.policy_module import UnshardedModel
from reasontrain.models import Policy
from reasontrain.recipe import LearnSettings
from reasontrain.recipe.learning import AdamW
from reasontrain.run.loop import Method, with_token_advantages
from reasontrain.types import Batch, Problem, Rollout, TokenKind
from tests.tiny import batch, policy, tokenizer

TEMPERATURE = 0.7
SEQUENCE: dict[str, object] = {
    "importance_sampling_level": "sequence",
    "epsilon": 0.01,
    "epsilon_high": 0.02,
}
Found = tuple[float, dict[str, Tensor]]


def theirs(model: Policy, data: Batch, directory: Path, **options: object) -> Found:
    """The loss and gradients of TRL's trainer on this batch, in one micro-batch."""
    return learned_by(trainer_of(model, directory, **options), inputs(data))


def learned_by(trainer: GRPOTrainer, given: dict[str, Tensor]) -> Found:
    """The loss and gradients of TRL's trainer on its inputs, in one micro-batch."""
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    trainer.model.zero_grad()
    loss = trainer._compute_loss(trainer.model, given)
    loss.backward()
    return float(loss.detach()), gradients(trainer.model)


def trainer_of(model: Policy, directory: Path, **options: object) -> GRPOTrainer:
    config = GRPOConfig(
        output_dir=str(directory),
        use_cpu=True,
        bf16=False,
        report_to=[],
        **KEEP_ACTIVATIONS,
        per_device_train_batch_size=6,
        num_generations=2,
        temperature=TEMPERATURE,
        **{"epsilon": 0.2} | options,
    )
    model.model.save_pretrained(
        directory
    )  # where it looks for a reference, which it then does not ask: log-probs are given
    model.model.config._name_or_path = str(directory)
    prompts = Dataset.from_list([{"prompt": "1"}] * 6)
    return GRPOTrainer(
        model=model.model,
        reward_funcs=lambda prompts, **_: [0.0] * len(prompts),
        args=config,
        train_dataset=prompts,
        processing_class=tokenizer(),
    )


def inputs(data: Batch) -> dict[str, Tensor]:
    """Prompts filled on the left, responses on the right, as TRL's generation leaves them."""
    is_prompt_BT, is_response_BT = data.kind_BT == TokenKind.PROMPT, data.is_response_BT
    num_prompt, num_response = int(is_prompt_BT.sum(1).max()), int(is_response_BT.sum(1).max())
    num = len(data.rollout_B)
    found = {
        name: torch.zeros(num, width, dtype=torch.long)
        for name, width in (
            ("prompt_ids", num_prompt),
            ("prompt_mask", num_prompt),
            ("completion_ids", num_response),
            ("completion_mask", num_response),
        )
    }
    old, ref = torch.zeros(num, num_response), torch.zeros(num, num_response)
    for row in range(num):
        prompt, response = (
            data.ids_BT[row][is_prompt_BT[row]],
            data.ids_BT[row][is_response_BT[row]],
        )
        found["prompt_ids"][row, num_prompt - len(prompt) :] = prompt
        found["prompt_mask"][row, num_prompt - len(prompt) :] = 1
        found["completion_ids"][row, : len(response)] = response
        found["completion_mask"][row, : len(response)] = 1
        old[row, : len(response)] = data.old_logp_BT[row][is_response_BT[row]]
        ref[row, : len(response)] = data.ref_logp_BT[row][is_response_BT[row]]
    more = {"advantages": data.advantage_B, "old_per_token_logps": old, "ref_per_token_logps": ref}
    return {**found, **more, "num_items_in_batch": found["completion_mask"].sum()}


def ours(
    model: Policy,
    data: Batch,
    objective: Objective,
    token_selection: TokenSelection,
    loss_aggregation: str,
) -> Found:
    used = learner(model)
    model.model.zero_grad()
    seen = used.observe(data, token_selection.required_evidence)
    stats = used.gradient(
        seen, token_selection(seen), objective, LOSS_AGGREGATIONS[loss_aggregation]
    )
    return stats["loss"], gradients(model.model)


def learner(model: Policy) -> PolicyLearner:
    settings = LearnSettings(lr=0.05, rollouts_per_step=6, micro_batch_tokens=50)
    return compose_learner(
        model, settings, steps=10, temperature=TEMPERATURE, reference=UnshardedModel(policy(seed=6))
    )


def gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def near(model: Policy) -> Batch:
    """Old and reference log-probs near the policy's own, so that some ratios are clipped and some
    are not.
    """
    data = batch()
    data = learner(model).observe(
        Batch(**{**vars(data), "evidence": {}}), frozenset({"old_logp", "ref_logp"})
    )
    draw = torch.Generator().manual_seed(1)
    return data.with_evidence(
        {"old_logp": data.old_logp_BT + 0.2 * torch.randn(data.ids_BT.shape, generator=draw)}
    )


def assert_same(found: Found, expected: Found) -> None:
    assert found[0] == pytest.approx(expected[0], abs=2e-6)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        assert_close(
            found[1][name], gradient, rtol=1e-4, atol=3e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("loss_type", ["bnpo", "grpo"])
def test_two_passes_over_a_batch_are_trls_at_num_iterations_2(
    loss_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL's own training loop: one generation, two optimiser steps, on the same rollouts."""
    start = policy(seed=1)
    data = replace(batch(), evidence={})
    updates = LearnSettings(
        lr=0.02,
        rollouts_per_step=6,
        optimizer=AdamW(eps=1e-3),
        micro_batch_tokens=50,
        updates_per_batch=2,
        epochs_per_batch=2,
    )
    used = compose_learner(start, updates, steps=1, temperature=TEMPERATURE)
    seen = used.observe(data, frozenset({"old_logp"}))
    average = {"bnpo": "token_mean", "grpo": "seq_mean_token_mean"}[loss_type]
    stats = used.step(seen, seen.is_response_BT.float(), Grpo(), LOSS_AGGREGATIONS[average])

    model = policy(seed=1)
    config = GRPOConfig(
        output_dir=str(tmp_path),
        use_cpu=True,
        bf16=False,
        report_to=[],
        **KEEP_ACTIVATIONS,
        per_device_train_batch_size=6,
        num_generations=2,
        temperature=TEMPERATURE,
        loss_type=loss_type,
        epsilon=0.2,
        beta=0.0,
        num_iterations=2,
        max_steps=2,
        learning_rate=0.02,
        lr_scheduler_type="constant",
        optim="adamw_torch",
        adam_epsilon=1e-3,
        weight_decay=0.0,
        max_grad_norm=1.0,
        logging_steps=1,
        save_strategy="no",
        disable_tqdm=True,
    )
    model.model.save_pretrained(tmp_path)
    model.model.config._name_or_path = str(tmp_path)
    trainer = GRPOTrainer(
        model=model.model,
        reward_funcs=lambda **_: [0.0],
        args=config,
        train_dataset=Dataset.from_list([{"prompt": "1"}] * 6),
        processing_class=tokenizer(),
    )
    generations = []

    def generated(prompts: object) -> dict[str, Tensor]:
        generations.append(prompts)
        reference = torch.zeros(seen.ids_BT.shape)
        return inputs(seen.with_evidence({"ref_logp": reference}))

    monkeypatch.setattr(trainer, "_generate_and_score_completions", generated)
    trainer.train()
    assert len(generations) == 1
    assert trainer.state.global_step == 2
    logs = [log for log in trainer.state.log_history if "grad_norm" in log]
    for number, log in enumerate(logs, start=1):
        assert stats[f"grad_norm_update_{number}"] == pytest.approx(log["grad_norm"], rel=1e-4)
        assert stats[f"lr_update_{number}"] == log["learning_rate"]
    assert stats["clipped_update_1"] == 0
    assert stats["clipped_update_2"] > 0
    for (name, parameter), trained in zip(
        start.model.named_parameters(), model.model.parameters(), strict=True
    ):
        assert_close(
            parameter.detach(),
            trained.detach(),
            rtol=1e-4,
            atol=1e-5,
            msg=lambda m, n=name: f"{n}: {m}",
        )


@pytest.mark.parametrize(
    ("options", "objective", "loss_aggregation"),
    [
        ({"loss_type": "grpo"}, Grpo(), "seq_mean_token_mean"),
        ({"loss_type": "bnpo", "epsilon_high": 0.28}, Grpo(clip_high=0.28), "token_mean"),
        ({"loss_type": "dapo"}, Grpo(), "token_mean"),
        # by default TRL multiplies k3 by the ratio (DeepSeek-V3.2); GRPO as published does not
        (
            {"loss_type": "grpo", "beta": 0.1, "use_bias_correction_kl": False},
            Grpo(reference_kl=0.1),
            "seq_mean_token_mean",
        ),
        (
            SEQUENCE | {"loss_type": "grpo"},
            Gspo(clip_low=0.01, clip_high=0.02),
            "seq_mean_token_mean",
        ),
        (SEQUENCE | {"loss_type": "bnpo"}, Gspo(clip_low=0.01, clip_high=0.02), "token_mean"),
        (
            {"loss_type": "dapo", "epsilon_high": 0.28, "beta": 0.1},
            Grpo(clip_high=0.28, reference_kl=0.1, kl_estimator="k3_ratio"),
            "token_mean",
        ),
        (
            {"loss_type": "dr_grpo", "max_completion_length": 40},
            Grpo(),
            "seq_mean_token_sum_norm",
        ),
        ({"loss_type": "cispo", "epsilon_high": 1.1}, Cispo(ratio_cap=1.1), "token_mean"),
        (
            {"loss_type": "cispo", "epsilon_high": 5.0, "beta": 0.1},
            Cispo(reference_kl=0.1, kl_estimator="k3_ratio"),
            "token_mean",
        ),
        (
            {"loss_type": "bnpo", "entropy_coef": 0.3, "beta": 0.0},
            Grpo(entropy_bonus=0.3),
            "token_mean",
        ),
    ],
    ids=[
        "grpo",
        "bnpo",
        "dapo",
        "reference KL",
        "sequence ratio",
        "sequence ratio by tokens",
        "dapo with an unbiased penalty",
        "dr_grpo",
        "cispo",
        "cispo with a penalty",
        "entropy bonus",
    ],
)
def test_loss_and_gradient_are_trls(
    options: dict[str, object], objective: Objective, loss_aggregation: str, tmp_path: Path
) -> None:
    model = policy(seed=1)
    data = replace(near(model), max_response_tokens=40)
    found = ours(model, data, objective, AllTokens(), loss_aggregation)
    assert_same(found, theirs(model, data, tmp_path, **options))


def test_the_fifth_of_the_tokens_is_trls_where_its_quantile_keeps_as_many(tmp_path: Path) -> None:
    """TRL keeps n - ceil(0.8 (n - 1)) of n tokens and divides by n; ours is asked for as many."""
    model = policy(seed=1)
    data = near(model)
    num = int(data.is_response_BT.sum())
    kept = num + int(-(0.8 * (num - 1)) // 1)
    found = ours(model, data, Grpo(), TopEntropy(keep_ratio=kept / num), "response_token_mean")
    assert_same(found, theirs(model, data, tmp_path, loss_type="bnpo", top_entropy_quantile=0.2))


def test_a_penalty_at_tokens_that_are_not_selected_is_trls(tmp_path: Path) -> None:
    """TRL penalises every token and takes the policy gradient of a fifth of them."""
    model = policy(seed=1)
    data = near(model)
    num = int(data.is_response_BT.sum())
    kept = num + int(-(0.8 * (num - 1)) // 1)
    objective = Grpo(reference_kl=0.1, kl_estimator="k3_ratio", penalised_tokens="all")
    found = ours(model, data, objective, TopEntropy(keep_ratio=kept / num), "response_token_mean")
    options = {"loss_type": "bnpo", "beta": 0.1, "top_entropy_quantile": 0.2}
    assert_same(found, theirs(model, data, tmp_path, **options))


@pytest.mark.parametrize(
    ("ratio", "mode", "bounds", "correction"),
    [
        ("token", "token_truncate", (None, 1.2), TruncateRatio(cap=1.2)),
        ("token", "token_truncate", (0.9, 1.2), TruncateRatio(cap=1.2, floor=0.9)),
        ("token", "sequence_truncate", (None, 1.2), TruncateRatio(level="sequence", cap=1.2)),
        ("token", "token_mask", (0.9, 1.2), MaskRatio(cap=1.2, floor=0.9)),
        ("token", "sequence_mask", (0.9, 3.0), MaskRatio(level="sequence", floor=0.9)),
        # Weights of tokens beside a ratio of the response are averaged over it by TRL, and stay
        # with their tokens here: the losses are equal, the gradients are not.
        ("sequence", "sequence_truncate", (None, 1.2), TruncateRatio(level="sequence", cap=1.2)),
        ("sequence", "sequence_mask", (None, 1.2), MaskRatio(level="sequence", cap=1.2)),
    ],
)
def test_the_correction_of_the_samplers_probabilities_is_trls(
    ratio: str,
    mode: str,
    bounds: tuple[float | None, float],
    correction: Correction,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """TRL's own code scores the rollouts, as it does those of vLLM, and learns from them."""
    model = policy(seed=1)
    data = replace(batch(), evidence={})
    data = learner(model).observe(data, frozenset({"old_logp", "ref_logp"}))
    noise_BT = 0.2 * torch.randn(data.ids_BT.shape, generator=torch.Generator().manual_seed(2))
    data = data.with_evidence({"sampled_logp": data.old_logp_BT + noise_BT})
    objective = Grpo() if ratio == "token" else Gspo(clip_low=0.01, clip_high=0.02)
    options = {"loss_type": "grpo"} | (SEQUENCE if ratio == "sequence" else {})
    trainer = trainer_of(
        model,
        tmp_path,
        vllm_importance_sampling_mode=mode,
        vllm_importance_sampling_clip_min=bounds[0],
        vllm_importance_sampling_clip_max=bounds[1],
        **options,
    )
    trainer.use_vllm = True
    monkeypatch.setattr(trainer, "_generate", lambda prompts: generated(data))
    scored = trainer._generate_and_score_completions([{"prompt": "1"}] * 6)
    corrected = with_token_advantages(
        Method(
            objective=objective,
            loss_aggregation=LOSS_AGGREGATIONS["seq_mean_token_mean"],
            correction=correction,
        ),
        data,
    )
    share = sum(
        value for name, value in correction.metrics(data).items() if name.endswith("_share")
    )
    assert 0 < share < 1
    # The update is one of several on the batch, so that ratios are clipped as well.
    moved = near(model)
    found = ours(
        model,
        corrected.with_evidence({"old_logp": moved.old_logp_BT}),
        objective,
        AllTokens(),
        "seq_mean_token_mean",
    )
    known = inputs(moved)
    scored |= {name: known[name] for name in ("advantages", "old_per_token_logps")}
    assert_same(found, learned_by(trainer, scored))


@pytest.mark.parametrize(("limit", "buffer"), [(10, 4), (7, 7), (20, 1)])
def test_the_penalty_of_long_responses_is_trls(limit: int, buffer: int) -> None:
    lengths = range(1, limit + 1)
    some = [
        Rollout(
            problem=Problem(id="a", prompt=""),
            id=length,
            group=0,
            prompt_ids=(1,),
            response_ids=(5,) * length,
            reward=0.25,
        )
        for length in lengths
    ]
    expected = get_soft_overlong_punishment(limit, buffer)([[5] * length for length in lengths])
    found = [one.reward for one in Overlong(buffer=buffer)(some, limit)]
    assert found == pytest.approx([0.25 + punishment for punishment in expected])


def generated(data: Batch) -> tuple[object, ...]:
    """The rollouts as TRL's generation by vLLM returns them."""

    def rows(values_BT: Tensor, kind: TokenKind) -> list[list[float]]:
        return [
            row_T[kind_T == kind].tolist()
            for row_T, kind_T in zip(values_BT, data.kind_BT, strict=True)
        ]

    return (
        rows(data.ids_BT, TokenKind.PROMPT),
        rows(data.ids_BT, TokenKind.RESPONSE),
        None,
        ["text"] * len(data.rollout_B),
        rows(data.sampled_logp_BT, TokenKind.RESPONSE),
        {},
        None,
        [],
    )
