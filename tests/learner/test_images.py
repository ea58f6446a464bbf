"""Rows with images through the learner: placeholders weigh nothing, and no cut changes a
gradient.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from reasontrain import models
from reasontrain.algo.advantages import NoAdvantage
from reasontrain.algo.loss_aggregation import response_token_mean
from reasontrain.algo.objectives import Nll
from reasontrain.algo.token_selection import Prior
from reasontrain.data.collate import collate
from reasontrain.data.micro_batches import build_micro_batch
from reasontrain.data.prompts import Encoder, PromptSettings
from reasontrain.data.replies import encode_demonstrations
from reasontrain.learner.factory import compose_learner
from reasontrain.models import ModelSettings, Policy
from reasontrain.models.testbed_vision import BUILDERS
from reasontrain.recipe import LearnSettings
from reasontrain.tasks.images import ImageTask
from reasontrain.types import Batch


def demonstrations(policy: Policy) -> Batch:
    """Six captions with the log-probs of a reference, of which three share a longer prompt."""
    problems = ImageTask(num_problems=6).problems()
    problems = [replace(p, prompt="What?") if i % 2 else p for i, p in enumerate(problems)]
    encoder = Encoder(policy.tokenizer, PromptSettings(), policy.context, policy.vision)
    written, _ = encode_demonstrations(encoder, problems)
    data = collate(written, advantage=NoAdvantage())
    draw = torch.Generator().manual_seed(1)
    column_BT = -6 * torch.rand(data.ids_BT.shape, generator=draw) ** 3
    return data.with_evidence({"uncond_logp": torch.where(data.is_response_BT, column_BT, 0.0)})


def loaded(name: str, where: Path) -> Policy:
    BUILDERS[name](where)
    return models.load(ModelSettings(path=str(where)), trainable=True)


@pytest.mark.parametrize("name", BUILDERS)
def test_placeholders_weigh_nothing_and_a_caption_as_much_as_it_is_long(
    name: str, tmp_path: Path
) -> None:
    policy = loaded(name, tmp_path)
    data = demonstrations(policy)
    weight_BT = Prior()(data)
    seen_BT = data.ids_BT == policy.vision.image_id
    assert seen_BT.sum(1).tolist() == [{"qwen2.5-vl": 4, "llava": 16}[name]] * 6
    assert weight_BT[~data.is_response_BT].abs().max() == 0
    assert not (seen_BT & data.is_response_BT).any()
    assert_close(weight_BT.sum(1), data.is_response_BT.sum(1).float(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", BUILDERS)
def test_no_cut_changes_a_gradient(name: str, tmp_path: Path) -> None:
    found = {}
    for budget in (10_000, 130, 60):
        policy = loaded(name, tmp_path / str(budget))
        data = demonstrations(policy)
        learn = LearnSettings(lr=0.01, rollouts_per_step=6, micro_batch_tokens=budget)
        learner = compose_learner(policy, learn, steps=1)
        stats = learner.gradient(data, Prior()(data), Nll(), response_token_mean)
        gradient = torch.cat(
            [p.grad.flatten() for p in policy.model.parameters() if p.grad is not None]
        )
        found[budget] = (
            sum(len(part.micro_batches) for part in learner.mini_batches(data)),
            float(stats["loss"]),
            gradient,
        )
    assert [parts for parts, _, _ in found.values()] == sorted(
        {parts for parts, _, _ in found.values()}
    )
    for _, loss, gradient in found.values():
        assert loss == pytest.approx(found[10_000][1], abs=1e-6)
        assert_close(gradient, found[10_000][2], rtol=0, atol=1e-6)


def test_a_rank_without_rollouts_sees_an_image_that_no_row_looks_at(tmp_path: Path) -> None:
    policy = loaded("qwen2.5-vl", tmp_path)
    data = demonstrations(policy)
    idle = build_micro_batch(data, [], "padded")
    assert len(idle.index_K) == len(idle.start_K) == 0
    assert idle.images == (data.images[0],)
    assert int((idle.ids_RT == policy.vision.image_id).sum()) == 4
