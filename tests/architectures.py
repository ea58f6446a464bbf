"""Twenty architectures, tiny and random: what each can do here, and the table of it in the docs.

`make map` writes the table. A part counts as working only if its result is that of the plain
computation; a model that passes a check of the package and then differs fails the test.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import transformers
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig

from reasontrain import models
from reasontrain.algo.loss_aggregation import LOSS_AGGREGATIONS
from reasontrain.algo.objectives import Nll
from reasontrain.data.micro_batches import Layout
from reasontrain.data.sampling import Sampling
from reasontrain.learner.factory import compose_learner
from reasontrain.learner.lora import adapt
from reasontrain.learner.weight_export import save_model
from reasontrain.models import LINEAR, Lora, ModelSettings, Policy
from reasontrain.plan.shape import shape_of
from reasontrain.recipe import LearnSettings
from reasontrain.sampler.local import LocalSampler
from reasontrain.types import Batch, Problem, Prompt, UserError
from tests.tiny import SIZES, batch, tokenizer

MIXED = {"moe_intermediate_size": 24, "num_experts": 4, "num_experts_per_tok": 2}
WINDOW = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
"""A window shorter than the sequences that are tried."""
CONFIGS: Mapping[str, tuple[str, dict[str, object]]] = {
    "Qwen2": ("Qwen2Config", {}),
    "Qwen3": ("Qwen3Config", {}),
    "Qwen3-MoE": ("Qwen3MoeConfig", MIXED),
    "Qwen3-Next": (
        "Qwen3NextConfig",
        MIXED
        | {
            "shared_expert_intermediate_size": 24,
            "layer_types": ["linear_attention", "full_attention"],
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
        },
    ),
    "Llama": ("LlamaConfig", {}),
    "Gemma 2": ("Gemma2Config", WINDOW),
    "Gemma 3": ("Gemma3TextConfig", WINDOW),
    "Mistral": ("MistralConfig", {"sliding_window": 8}),
    "Mixtral": ("MixtralConfig", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "Phi-3": ("Phi3Config", {}),
    "OLMo 2": ("Olmo2Config", {}),
    "OLMoE": ("OlmoeConfig", {"num_experts": 4, "num_experts_per_tok": 2}),
    "SmolLM3": ("SmolLM3Config", {"no_rope_layers": [1, 0]}),
    "Granite": ("GraniteConfig", {"logits_scaling": 8.0, "embedding_multiplier": 12.0}),
    "GLM-4": ("Glm4Config", {}),
    "Cohere 2": ("Cohere2Config", WINDOW | {"logit_scale": 0.25}),
    "DeepSeek-V3": (
        "DeepseekV3Config",
        {
            "num_key_value_heads": 4,
            "moe_intermediate_size": 24,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 2,
            "topk_group": 1,
            "first_k_dense_replace": 1,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 8,
        },
    ),
    "gpt-oss": ("GptOssConfig", WINDOW | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "Falcon-H1": (
        "FalconH1Config",
        {
            "mamba_d_ssm": 32,
            "mamba_n_heads": 4,
            "mamba_d_head": 8,
            "mamba_d_state": 8,
            "mamba_n_groups": 1,
        },
    ),
    "LFM2": ("Lfm2Config", {"layer_types": ["conv", "full_attention"]}),
}
"""Name -> the configuration's class, and what makes it tiny besides `tests.tiny.SIZES`."""

COLUMNS = ("padded", "packed", "LoRA", "samples", "plan")
YES = "yes"


@dataclass(frozen=True)
class Row:
    """An architecture's cells by column: `YES`, a remark, or the sentence of a refusal."""

    name: str
    cells: Mapping[str, str]


def table() -> str:
    """The table in Markdown, with the sentences of refusals below it.

    In those ARCHITECTURE stands for a model's type and N for a number of parameters.
    """
    sentences: list[str] = []
    lines = [
        f"| architecture | {' | '.join(COLUMNS)} |",
        f"| --- | {' | '.join('---' for _ in COLUMNS)} |",
    ]
    for row in rows():
        cells = []
        for column in COLUMNS:
            cell = row.cells[column]
            if not cell.startswith((YES, "`")):
                if cell not in sentences:
                    sentences.append(cell)
                cell = f"no ({1 + sentences.index(cell)})"
            cells.append(cell)
        lines.append(f"| {row.name} | {' | '.join(cells)} |")
    notes = [f"{number}. {sentence}" for number, sentence in enumerate(sentences, 1)]
    return "\n".join([*lines, "", *notes])


def rows() -> list[Row]:
    """Every architecture, tried."""
    with TemporaryDirectory() as directory:
        return [tried(name, Path(directory) / name) for name in CONFIGS]


def tried(name: str, directory: Path) -> Row:
    """One architecture, saved in `directory` and loaded as a run loads it."""
    save(name, directory)
    settings = ModelSettings(path=str(directory))
    attempts: dict[str, Callable[[], str]] = {
        "padded": lambda: trains(settings, "padded"),
        "packed": lambda: trains(settings, "packed"),
        "LoRA": lambda: trains_adapters(settings),
        "samples": lambda: samples(settings),
        "plan": lambda: is_planned(name, directory),
    }
    architecture = config_of(name).model_type
    return Row(name, {column: answer(architecture, attempts[column]) for column in COLUMNS})


def answer(architecture: str, attempt: Callable[[], str]) -> str:
    """What an attempt returns, or the sentence of its refusal without figures and names."""
    try:
        return attempt()
    except UserError as refusal:
        sentence = re.sub(r"\d[\d.e-]* of their size", "part of their size", str(refusal))
        sentence = re.sub(r"\d{1,3}(,\d{3})+", "N", sentence)
        return sentence.replace(architecture, "ARCHITECTURE")


def config_of(name: str) -> PreTrainedConfig:
    """The tiny configuration of an architecture."""
    cls, sizes = CONFIGS[name]
    special = {f"{kind}_token_id": tokenizer().eos_token_id for kind in ("bos", "eos", "pad")}
    return getattr(transformers, cls)(**SIZES | special | sizes)


def save(name: str, directory: Path) -> None:
    """Write a random model of an architecture whose logits are far from uniform."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config_of(name)).float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(directory)
    tokenizer().save_pretrained(directory)


def trains(settings: ModelSettings, layout: Layout) -> str:
    """Loss and gradient in a layout are those of each sequence alone, and a step helps."""
    policy = models.load(settings, trainable=True, layout=layout)
    settings_alone = LearnSettings(lr=0.01, rollouts_per_step=6, micro_batch_tokens=1)
    alone = losses(copied(policy), settings_alone, 1)
    together = losses(policy, LearnSettings(lr=0.01, rollouts_per_step=6, layout=layout), 2)
    for name in ("loss", "grad_norm"):
        torch.testing.assert_close(together[0][name], alone[0][name], rtol=1e-4, atol=1e-5)
    assert together[-1]["loss"] < together[0]["loss"], "a step lowers the loss"
    if layout == "padded":
        check_export(policy, settings)
    return YES


def losses(policy: Policy, settings: LearnSettings, steps: int) -> list[dict[str, float]]:
    """The statistics of some steps of fine-tuning on one batch."""
    learner = compose_learner(policy, settings, steps=10)
    data: Batch = batch()
    average = LOSS_AGGREGATIONS["token_mean"]
    return [
        dict(learner.step(data, data.is_response_BT.float(), Nll(), average)) for _ in range(steps)
    ]


def copied(policy: Policy) -> Policy:
    """A copy of a policy with weights of its own."""
    return Policy(deepcopy(policy.model), policy.tokenizer, policy.dtype)


def trains_adapters(settings: ModelSettings) -> str:
    """Adapters learn and merge, on the default targets or on those that the cell names."""
    policy = models.load(settings, trainable=True, layout="padded")
    own = {
        name.rpartition(".")[2]: "attn" in name
        for name, module in policy.model.named_modules()
        if isinstance(module, nn.Linear) and "layers." in name and not name.endswith("_gate")
    }
    everywhere = tuple(sorted(own))
    attention = tuple(name for name in everywhere if own[name])
    for targets in (LINEAR, everywhere, attention):
        adapted = copied(policy)
        try:
            adapt(adapted, Lora(rank=4, targets=targets))
        except UserError:
            continue
        before = {name: p.detach().clone() for name, p in adapted.model.named_parameters()}
        stats = losses(adapted, LearnSettings(lr=0.01, rollouts_per_step=6), 3)
        assert stats[-1]["loss"] < stats[0]["loss"], "adapters lower the loss"
        for name, parameter in adapted.model.named_parameters():
            assert parameter.requires_grad or torch.equal(parameter, before[name]), name
        check_export(adapted, settings)
        return YES if targets == LINEAR else f"`targets: [{', '.join(targets)}]`"
    raise AssertionError("no matrix can be adapted")


@torch.no_grad()
def check_export(policy: Policy, settings: ModelSettings) -> None:
    """The exported model is read again and has the same logits; adapters are merged."""
    place = Path(settings.path) / "final"
    save_model(policy, place, torch.float32)
    again = models.load(replace(settings, path=str(place)))
    ids = torch.arange(3, 20)[None]
    logits = [each.model.eval()(ids, use_cache=False).logits for each in (again, policy)]
    torch.testing.assert_close(*logits, rtol=0, atol=1e-4)


def samples(settings: ModelSettings) -> str:
    """Log-probs of sampled tokens are those of one forward pass over prompt and response."""
    policy = models.load(settings)
    prompts = [
        Prompt(problem=Problem(id=str(index), prompt=""), ids=tuple(range(5, 8 + 4 * index)))
        for index in range(3)
    ]
    rollouts = LocalSampler(policy, seed=0).sample(
        prompts, Sampling(max_tokens=14), num=2, first_id=0
    )
    for rollout in rollouts:
        ids = torch.tensor([*rollout.prompt_ids, *rollout.response_ids])
        with torch.no_grad():
            logp_TV = policy.model(ids[None], use_cache=False).logits[0].float().log_softmax(-1)
        start = len(rollout.prompt_ids)
        logp = logp_TV[start - 1 : -1].gather(1, ids[start:, None])[:, 0]
        assert rollout.sampled_logp is not None
        torch.testing.assert_close(torch.tensor(rollout.sampled_logp), logp, rtol=0, atol=1e-4)
    return YES


def is_planned(name: str, directory: Path) -> str:
    """A plan knows the sizes of the configuration's defaults, which are those of a real model."""
    config = getattr(transformers, CONFIGS[name][0])()
    place = directory / "default"
    config.save_pretrained(place)
    shape_of(replace(ModelSettings(path=""), path=str(place)), "model")
    return YES
