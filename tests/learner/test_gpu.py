"""The same step on a GPU and on a CPU; run with `pytest -m gpu` where there is one."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from reasontrain.algo.loss_aggregation import LOSS_AGGREGATIONS
from reasontrain.algo.objectives import Distill
from reasontrain.algo.token_selection import Tip
from reasontrain.data.sampling import Sampling
from reasontrain.learner.factory import compose_learner
from reasontrain.learner.policy_module import UnshardedModel
from reasontrain.metrics.timing import Stopwatch
from reasontrain.recipe import LearnSettings
from reasontrain.sampler.local import LocalSampler
from reasontrain.types import Problem, Prompt
from tests.tiny import batch, policy

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_a_gpu_observes_selects_and_learns_as_a_cpu_does(layout: str) -> None:
    data, gradients = batch(), []
    for device in ("cpu", "cuda"):
        models = [policy("qwen3", seed=1), policy("llama", seed=5)]
        for model in models:
            model.model.to(device)
        settings = LearnSettings(lr=0.1, rollouts_per_step=6, layout=layout, micro_batch_tokens=60)
        used = compose_learner(models[0], settings, steps=1, teacher=UnshardedModel(models[1]))
        seen = used.observe(data, Tip().required_evidence)
        used.gradient(seen, Tip()(seen), Distill(), LOSS_AGGREGATIONS["seq_mean_token_mean"])
        gradients.append({name: p.grad.cpu() for name, p in models[0].model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert_close(gradients[1][name], gradient, rtol=1e-3, atol=1e-5)


def test_a_stopwatch_waits_for_nobody_before_it_is_read() -> None:
    """Thirty products in one part and ten in another: waiting raises until they are asked for, and
    neither part has no time.
    """
    device = torch.device("cuda")
    x, timer = torch.randn(2048, 2048, device=device), Stopwatch(device)
    y = x @ x  # loads the library
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with timer("trunk_forward"):
            for _ in range(30):
                y = x @ y
            with timer("vocabulary"):
                for _ in range(10):
                    y = x @ y
    finally:
        torch.cuda.set_sync_debug_mode("default")
    found = timer.read()
    assert 1 < found["trunk_forward"] / found["vocabulary"] < 9


def test_a_gpu_samples_what_a_cpu_samples() -> None:
    texts = []
    for device in ("cpu", "cuda"):
        model = policy("qwen3", seed=1)
        model.model.to(device)
        prompts = [
            Prompt(problem=Problem(id=str(i), prompt=""), ids=(5, 6, 7 + i)) for i in range(4)
        ]
        rollouts = LocalSampler(model, seed=0).sample(
            prompts, Sampling(max_tokens=16), num=2, first_id=0
        )
        texts.append([r.response_ids for r in rollouts])
    same = sum(a == b for a, b in zip(*texts, strict=True))
    assert same >= 7  # a near-tie may fall otherwise in one of eight
