"""Operations of a step, worked by hand on a tiny shape.

Width 4, feed-forward 6, two layers, queries of 4 and keys of 2 numbers, 10 tokens: matrices of 16 +
8 + 8 + 16 + 3 x 24 = 120 numbers a layer, so that a trunk takes 2 x (240 x tokens + 16 x pairs),
and a head 80 a row and product.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from reasontrain.algo.advantages import GroupNormalized
from reasontrain.data.collate import collate
from reasontrain.plan.flops import Operations, operations_of
from reasontrain.types import Batch, Problem, Rollout, TeacherPrompt, TokenKind, UserError
from tests.plan.jobs import job, recipe

SIZES = (
    "hidden_size: 4, intermediate_size: 6, num_layers: 2, num_heads: 2, num_kv_heads: 1, "
    "head_dim: 2, vocab_size: 10, tied: true"
)
TINY = f"model={{path: x, shape: {{{SIZES}}}}}"
TEACHER = f"teacher={{path: y, shape: {{{SIZES}}}}}"
TIP = (
    TINY,
    TEACHER,
    "objective={kind: distill}",
    "token_selection={kind: tip}",
    "advantage={kind: none}",
    "loss_aggregation=seq_mean_token_mean",
)
TRUNK, HEAD = 2 * (240 * 8 + 16 * 21), 80 * 4
"""Of both rollouts: 8 tokens that see 15 + 6, and 4 response rows."""


def rollouts() -> list[Rollout]:
    """A group of two: a prompt of 2 tokens with responses of 3 and of 1."""
    problem = Problem(id="a", prompt="")
    return [
        Rollout(
            problem=problem,
            id=i,
            group=0,
            prompt_ids=(1, 2),
            response_ids=(5,) * n,
            sampled_logp=(-1.0,) * n,
            reward=float(i),
        )
        for i, n in enumerate((3, 1))
    ]


def data() -> Batch:
    return collate(rollouts(), advantage=GroupNormalized())


def two_rows() -> torch.Tensor:
    """Two rows of the first rollout are kept, and none of the second."""
    return torch.tensor([[0.0, 0, 1, 1, 0], [0.0] * 5])


def count(
    *overrides: str, some: list[Rollout] | None = None, weight_BT: torch.Tensor | None = None
) -> dict[str, float]:
    """In operations."""
    counted = Operations(job(*overrides))(
        some or rollouts(), data(), two_rows() if weight_BT is None else weight_BT
    )
    return {name.removeprefix("tflop_"): round(1e12 * value, 3) for name, value in counted.items()}


def test_grpo_by_hand() -> None:
    """Sampled: 2 + 3 + 1 tokens that see 3 + 12 + 3, and 4 rows.

    Learned: 5 tokens that see 15, and 2 rows, three times.
    """
    found = count(TINY)
    assert found["sampled"] == 2 * (240 * 6 + 16 * 18) + 80 * 4
    assert found["learned"] == 3 * (2 * (240 * 5 + 16 * 15) + 80 * 2)
    assert (found["evidence"], found["recomputed"]) == (
        0,
        0,
    )  # the sampler's log-probs are the old ones


def test_what_is_done_again_stands_apart() -> None:
    plain, again = count(TINY), count(TINY, "model.gradient_checkpointing=true")
    assert again == plain | {"recomputed": 2 * (240 * 5 + 16 * 15)}
    ratios = count(
        TINY, "objective={kind: gspo}", "loss_aggregation=seq_mean_token_mean"
    )  # of whole responses, projected again in backward
    assert ratios["learned"] == 3 * (2 * (240 * 5 + 16 * 15) + 80 * 3)
    assert ratios["recomputed"] == 80 * 3


def test_models_that_are_compared_with_are_counted() -> None:
    assert count(TINY, "objective.reference_kl=0.1")["evidence"] == TRUNK + HEAD
    found = count(*TIP)
    assert found["evidence"] == 2 * (TRUNK + HEAD)
    assert found["learned"] == count(TINY)["learned"] + 80 * 2  # the teacher's trunk was kept
    plain = count(*TIP, "token_selection={kind: all}")
    assert plain["evidence"] == 0
    assert plain["learned"] == found["learned"] + 2 * (240 * 5 + 16 * 15)
    assert (
        count(*TIP, "cluster={learners: 1, teachers: 1}")["evidence"] == found["evidence"] - TRUNK
    )


def test_each_of_several_teachers_is_counted_for_its_own_rollouts() -> None:
    own = [f"{{path: y, value: {value}, shape: {{{SIZES}}}}}" for value in "ab"]
    chosen = job(*TIP, f"teacher={{kind: by_column, column: c, teachers: [{', '.join(own)}]}}")
    divided = replace(data(), teacher_index={0: 1, 1: 0})
    found = Operations(chosen)(rollouts(), divided, two_rows())
    alone = Operations(job(*TIP))(rollouts(), data(), two_rows())
    assert found == alone
    both = [f"{{path: y, shape: {{{SIZES}}}}}"] * 2
    mixed = job(*TIP, f"teacher={{kind: mixed, teachers: [{', '.join(both)}]}}")
    found = Operations(mixed)(rollouts(), data(), two_rows())
    assert round(1e12 * (found["tflop_evidence"] - alone["tflop_evidence"]), 3) == TRUNK + HEAD
    assert round(1e12 * (found["tflop_learned"] - alone["tflop_learned"]), 3) == 80 * 2


def test_a_teacher_with_a_longer_prompt_is_counted_at_its_length() -> None:
    """Four tokens more before the first response: 9 tokens that see 45, and 3 that see 6."""
    prompts = {0: TeacherPrompt((7,) * 6, 2)}
    long = replace(data(), teacher_prompts=prompts)
    counted = Operations(job(*TIP))(rollouts(), long, two_rows())
    found = round(1e12 * counted["tflop_evidence"], 3)
    assert found == TRUNK + HEAD + 2 * (240 * 12 + 16 * 51) + HEAD
    plain = job(*TIP, "token_selection={kind: all}")
    more = Operations(plain)(rollouts(), long, two_rows())["tflop_learned"]
    less = Operations(plain)(rollouts(), data(), two_rows())["tflop_learned"]
    assert round(1e12 * (more - less), 3) == 2 * (240 * 4 + 16 * 30)


def test_frozen_weights_have_no_gradient() -> None:
    assert count(TINY, "model.lora={rank: 2}")["learned"] == 2 * (2 * (240 * 5 + 16 * 15) + 80 * 2)


def test_nothing_kept_is_nothing_learned() -> None:
    assert count(TINY, weight_BT=torch.zeros(2, 5))["learned"] == 0


def test_a_soft_token_is_mixed() -> None:
    some = [replace(one, kinds=(TokenKind.SOFT,) * len(one.response_ids)) for one in rollouts()]
    assert count(TINY, some=some)["sampled"] == count(TINY)["sampled"] + HEAD


def test_a_model_is_counted_by_its_own_configuration() -> None:
    with pytest.raises(UserError, match="no configuration of nobody/nothing"):
        operations_of(recipe())
    assert operations_of(recipe("model.path=testbed:student")).job.shape.hidden_size == 96
