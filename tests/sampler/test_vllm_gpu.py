"""What vLLM has on GPUs alone; the rest is in tests/integration/test_vllm.py, which runs there too.

Run with `pytest -m gpu` where vLLM for GPUs is installed.
"""

from __future__ import annotations

import importlib.util

import pytest
import torch

from reasontrain import models
from reasontrain.data.sampling import Sampling
from reasontrain.learner import weight_export
from reasontrain.models import ModelSettings
from reasontrain.recipe import VllmEngine
from reasontrain.sampler.local import LocalSampler
from reasontrain.sampler.vllm import VllmSampler
from reasontrain.types import Problem, Prompt, Weights

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None,
        reason="no vLLM here: pip install -e '.[dev,vllm]' -c constraints-vllm.txt",
    ),
]
PROMPTS = [
    Prompt(problem=Problem(id=str(i), prompt=""), ids=tuple(range(5, 12 + i))) for i in range(8)
]
GREEDY = Sampling(temperature=0.0, max_tokens=48)


def test_sleep_frees_the_memory_and_load_wakes() -> None:
    model = ModelSettings(path="testbed:teacher", dtype="float32", device="cuda")
    settings = VllmEngine(gpu_memory_utilization=0.3, enforce_eager=True, max_model_len=512)
    sampler = VllmSampler(model, settings, seed=4, colocated=True)
    policy = models.load(model)
    free, total = torch.cuda.mem_get_info()
    sampler.sleep()
    asleep, _ = torch.cuda.mem_get_info()
    assert asleep - free > 0.2 * total  # of the 0.3 that the engine may have
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    sampler.load(Weights(version=1, tensors=lambda: weight_export.tensors(policy.model)))
    awake, _ = torch.cuda.mem_get_info()
    assert abs(awake - free) < 0.02 * total
    own, local = (
        each.sample(PROMPTS, GREEDY, num=1, first_id=0)
        for each in (sampler, LocalSampler(policy, seed=0))
    )
    assert [r.response_ids for r in own] == [r.response_ids for r in local]
    sampler.close()
