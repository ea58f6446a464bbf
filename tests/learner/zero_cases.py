"""What every rank of a test does: cases by name, one after another in one process group; the parent
compares their numbers.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from transformers import AutoModelForCausalLM, Qwen3Config
from transformers.initialization import no_init_weights

from reasontrain.algo.loss_aggregation import LOSS_AGGREGATIONS
from reasontrain.algo.objectives import (
    Cispo,
    Distill,
    Dpo,
    Grpo,
    Gspo,
    Objective,
    Reinforce,
    SoftReinforce,
)
from reasontrain.algo.token_selection import (
    AdvantageEntropy,
    Contrast,
    LinearSchedule,
    MaxVariance,
    Tip,
)
from reasontrain.data.sampling import Sampling
from reasontrain.learner.factory import compose_learner, make_learner
from reasontrain.learner.history import (
    AdaptersOffHistory,
    FrozenHistory,
    History,
    MovingAverageHistory,
)
from reasontrain.learner.lora import adapt
from reasontrain.learner.policy_learner import PolicyLearner
from reasontrain.learner.policy_module import FrozenModel, UnshardedModel
from reasontrain.learner.teacher_states import SeveralTeachers
from reasontrain.metrics.timing import LEARNER_PARTS, key
from reasontrain.models import Lora, ModelSettings, Policy, load
from reasontrain.recipe import LearnSettings, Recipe, Zero, build
from reasontrain.recipe.learning import AdamW
from reasontrain.sampler.local import LocalSampler
from reasontrain.types import Batch, Problem, Prompt
from tests.learner import soft_batch
from tests.peak_bytes import GrowthOfMemory
from tests.tiny import SIZES, batch, pairs, policy, tokenizer, with_teacher_prompts

STAGES = (0, 1, 2, 3)
PLACES = [(1, 0), (1, 3), *((2, stage) for stage in STAGES)]
"""Ranks and stage of every kind of step."""
SELECTING = [*PLACES, (4, 2), (4, 3)]
"""Of steps that select, whose statistics and rankings are of the whole step."""
MODELS = {
    "untied": {},
    "tied": {"tied": True},
    "lora": {"lora": True},
    "lora-tied": {"lora": True, "tied": True},
}
MADE_OF = [
    (*at, model) for at in PLACES for model in (MODELS if at[1] in (0, 3) else ("untied", "tied"))
]
"""Ranks, stage and model; what stages 1 and 2 divide does not know adapters from other weights."""
BUDGETS = {1: (10_000, 60, 50), 2: (10_000, 40, 24)}
"""Tokens per micro-batch at steps 0, 1 and 2, which give the busiest of so many ranks 1, 2 and 3
micro-batches.
"""

Make = Callable[..., PolicyLearner]
Named = dict[str, Tensor]
RULE = Tip(keep_ratio=0.3)
NEEDS = RULE.required_evidence | {
    "ref_logp",
    "old_logp",
    "history_logp",
    "attention",
    "compatibility",
    "disagreement",
    "excess_noise",
    "teacher_entropy",
    "teacher_logp",
    "entropy_top20",
}


def student(*, tied: bool = False, lora: bool = False, seed: int = 1, **options: object) -> Policy:
    found = policy("qwen3", tied=tied, seed=seed, **options)
    if lora:
        adapt(found, Lora(rank=4, alpha=8.0))
        draw = torch.Generator().manual_seed(seed)
        for name, parameter in found.model.named_parameters():
            if "lora_B" in name:  # zero at the start, which would hide half of the gradients
                parameter.data = 0.1 * torch.randn(parameter.shape, generator=draw)
    return found


def learner(
    model: Policy,
    zero: Zero | None,
    frozen: Callable[[Policy], FrozenModel] = UnshardedModel,
    *,
    lr: float = 0.01,
    history: History | None = None,
    second_teacher: Policy | None = None,
    **changes: object,
) -> PolicyLearner:
    """With an epsilon that keeps AdamW from making a step of the rounding in a gradient of zero."""
    settings = LearnSettings(
        lr=lr, rollouts_per_step=6, optimizer=AdamW(eps=1e-3, weight_decay=0.1), zero=zero
    )
    others = [
        policy("llama", seed=5),
        policy("qwen3", seed=6),
        *([] if history else [policy("qwen2", seed=7)]),
    ]
    for other in others:
        other.model.requires_grad_(False)
    teacher, reference, *earlier = map(frozen, others)
    if second_teacher is not None:
        second_teacher.model.requires_grad_(False)
        teacher = SeveralTeachers((teacher, frozen(second_teacher)))
    compared = {
        "teacher": teacher,
        "reference": reference,
        "history": history or FrozenHistory(*earlier),
    }
    return compose_learner(model, replace(settings, **changes), steps=10, **compared)


def gradients(used: PolicyLearner) -> Named:
    """Whole, over all ranks, before clipping."""
    named = [(name, p) for name, p in used.policy.model.named_parameters() if p.requires_grad]
    if used.settings.zero is None or used.settings.zero.stage == 0:
        return {name: p.grad.clone() for name, p in named if p.grad is not None}
    from deepspeed.utils import safe_get_full_grad

    return {name: safe_get_full_grad(p).clone() for name, p in named}


def weights(used: PolicyLearner) -> Named:
    return {name: tensor.detach().float().clone() for name, tensor in used.weights().tensors()}


def masters(used: PolicyLearner) -> Named:
    """The weights that the optimiser moves, in float32."""
    named = used.policy.model.named_parameters()
    if used.settings.zero is None or used.settings.zero.stage == 0:
        return {name: p.detach().clone() for name, p in named}
    from deepspeed.utils import safe_get_full_fp32_param

    return {name: safe_get_full_fp32_param(p).detach().clone() for name, p in named}


def num_micro_batches(used: PolicyLearner, data: Batch) -> int:
    return sum(len(mini_batch.micro_batches) for mini_batch in used.mini_batches(data))


def step(
    used: PolicyLearner,
    data: Batch,
    weight_BT: Tensor | None = None,
    objective: Objective | None = None,
    required_evidence: frozenset[str] = NEEDS,
) -> dict[str, object]:
    """One step, and everything it makes: evidence, loss, gradients before clipping."""
    begun = time.perf_counter()
    seen = used.observe(data, required_evidence)
    chosen_BT = RULE(seen) if weight_BT is None else weight_BT
    found: dict[str, object] = {
        "evidence": dict(seen.evidence),
        "micro": num_micro_batches(used, data),
    }
    # The function in which gradients are summed over ranks already.
    owner, name = (
        (used.engine, "update")
        if used.settings.zero is None
        else (used.engine.deepspeed, "_take_model_step")
    )
    inner = getattr(owner, name)

    def watched(given: object) -> object:
        found["gradients"] = gradients(used)
        return inner(given)

    setattr(owner, name, watched)
    stats = used.step(
        seen, chosen_BT, objective or Distill(), LOSS_AGGREGATIONS["seq_mean_token_mean"]
    )
    found["wall_s"] = time.perf_counter() - begun
    found["times"] = {part: stats.pop(key(part)) for part in LEARNER_PARTS}
    found["peak_gb"] = stats.pop("memory_peak_gb")
    found["stats"] = stats
    setattr(owner, name, inner)
    found["weights"] = weights(used)
    return found


# ---- cases: what one rank does and answers; without `zero`, the one process that it must equal


def parity(zero: Zero | None, world: int, model: str, **changes: object) -> object:
    """Three steps with 1, 2 and 3 micro-batches on the busiest rank."""
    options = dict(MODELS[model])
    options |= {"checkpointing": True} if changes.pop("checkpointing", False) else {}
    # as a model is loaded for this layout
    options |= {"attention": "varlen"} if changes.get("layout") == "packed" else {}
    trained = student(**options)
    trained.vocabulary = changes.pop("vocabulary", "auto")
    used = learner(trained, zero, **changes)
    found = []
    for seed, budget in enumerate(BUDGETS[world]):
        used.settings = replace(used.settings, micro_batch_tokens=budget)
        found.append(step(used, batch(seed=seed)))
    return found


def histories(zero: Zero | None, world: int, model: str) -> object:
    """Steps whose history is the policy without its adapters, or follows it."""
    used = student(**MODELS[model])
    made = learner(
        used,
        zero,
        history=AdaptersOffHistory(used.model) if model == "lora" else moving_average(7),
        micro_batch_tokens=40,
    )
    return [step(made, batch(seed=seed)) for seed in range(3)]


def moving_average(seed: int) -> MovingAverageHistory:
    """Of weights that are nobody's at first."""
    model = policy("qwen3", seed=seed)
    model.model.requires_grad_(False)
    return MovingAverageHistory(model, 0.75)


def edges(zero: Zero | None, world: int) -> object:
    """Steps in which a rank has nothing to do, or nobody has, or a gradient is not finite."""
    used = learner(student(), zero, micro_batch_tokens=40)
    data = batch(seed=3)
    alone_BT = torch.zeros(data.ids_BT.shape)
    alone_BT[2] = data.is_response_BT[2].float()
    bad = replace(data, advantage_B=torch.full_like(data.advantage_B, float("nan")))
    found = {
        "first": step(used, data),
        "one rollout selected": step(used, data, alone_BT),
        "one rollout": step(used, batch(seed=4, num=1)),
        "nothing selected": step(used, data, torch.zeros(data.ids_BT.shape)),
    }
    if zero is not None:  # the one process never sees it
        found["not finite"] = step(used, bad, data.is_response_BT.float(), Reinforce())
    found["after"] = step(used, batch(seed=7))
    return found


def dropping(zero: Zero | None, world: int) -> object:
    """Rollouts and tokens dropped, by a token ratio, by a response's and with advantages of tokens
    beside a bonus at all of them; then a step of which nothing is left.
    """
    used = learner(student(), zero, micro_batch_tokens=30)
    rollouts, tokens = (
        MaxVariance(keep_ratio=LinearSchedule(init=0.5)),
        AdvantageEntropy(keep_ratio=LinearSchedule(init=0.4)),
    )
    found = {}
    objectives = (
        Grpo(),
        Gspo(clip_low=0.02, clip_high=0.03),
        Cispo(ratio_cap=1.1, entropy_bonus=0.1, penalised_tokens="all"),
    )
    for seed, objective in enumerate(objectives):
        data = rollouts(batch(seed=seed, num=10))
        seen = used.observe(replace(data, evidence={}), tokens.required_evidence | {"old_logp"})
        noise_BT = 0.2 * torch.randn(
            data.ids_BT.shape, generator=torch.Generator().manual_seed(seed)
        )
        seen = seen.with_evidence({"old_logp": seen.old_logp_BT + noise_BT})
        weight_BT = tokens(seen)
        if isinstance(objective, Cispo):
            seen = replace(seen, advantage_BT=seen.advantage_B[:, None] * noise_BT.exp())
        found[objective.kind] = step(used, seen, weight_BT, objective, frozenset()) | {
            "rollouts": data.rollout_B,
            "tokens": weight_BT,
        }
    data = batch(seed=2)
    nothing = rollouts(replace(data, advantage_B=torch.zeros_like(data.advantage_B)))
    found["nothing"] = step(used, nothing, torch.zeros(nothing.ids_BT.shape), Grpo())
    return found


def updates(zero: Zero | None, world: int) -> object:
    """Batches in four updates, two passes of two mini-batches each, with clips that act soon.

    The second batch has one rollout: a mini-batch without any, on every rank.
    """
    used = learner(
        student(), zero, lr=0.003, micro_batch_tokens=40, updates_per_batch=4, epochs_per_batch=2
    )
    objective = Grpo(clip_low=0.02, clip_high=0.03)
    found = []
    for seed, num in enumerate((6, 1)):
        data = replace(batch(seed=seed, num=num), evidence={}, step=seed)
        seen = used.observe(data, frozenset({"old_logp"}))
        stats = used.step(
            seen, data.is_response_BT.float(), objective, LOSS_AGGREGATIONS["token_mean"]
        )
        stats = {
            name: value
            for name, value in stats.items()
            if not name.startswith(("time_", "memory_"))
        }
        found.append({"stats": stats, "evidence": dict(seen.evidence), "weights": weights(used)})
    return found


def soft(zero: Zero | None, world: int, model: str) -> object:
    """Three steps with soft thoughts, of which a rank's micro-batch may hold none; all were sampled
    before there were ranks.
    """
    made = student(**MODELS[model])
    data = soft_batch.batch(made)
    data = replace(data, advantage_B=data.advantage_B / 1000)
    used = learner(made, zero)
    found = []
    for budget in (10_000, 60, 30):
        used.settings = replace(used.settings, micro_batch_tokens=budget)
        found.append(step(used, data, soft_batch.ones(data), SoftReinforce()))
    return found


def sharded(zero: Zero | None, world: int) -> object:
    """A teacher and a reference that no rank holds whole."""
    if zero is None:
        return [step(learner(student(), None, micro_batch_tokens=40), batch(seed=3))]
    from reasontrain.learner.zero import ShardedModel

    settings = LearnSettings(lr=0.01, rollouts_per_step=6)
    made: list[ShardedModel] = []

    def shard(frozen: Policy) -> FrozenModel:
        made.append(ShardedModel(frozen, zero, settings))
        return made[-1]

    found = step(learner(student(), zero, shard, micro_batch_tokens=40), batch(seed=3))
    return [found | {"whole": sum(p.numel() for m in made for p in m.policy.model.parameters())}]


def several_teachers(zero: Zero | None, world: int) -> object:
    """Two teachers that no rank holds whole, behind prompts of their own.

    The first has one rollout, so that a rank runs it without any.
    """
    data = with_teacher_prompts(batch(seed=3))
    rollouts = data.rollout_B.tolist()
    data = replace(data, teacher_index=dict.fromkeys(rollouts, 1) | {rollouts[2]: 0})
    second = policy("gemma", seed=8)
    if zero is None:
        frozen: Callable[[Policy], FrozenModel] = UnshardedModel
    else:
        from reasontrain.learner.zero import ShardedModel

        settings = LearnSettings(lr=0.01, rollouts_per_step=6)
        frozen = partial(ShardedModel, zero=zero, settings=settings)
    used = learner(student(), zero, frozen, second_teacher=second, micro_batch_tokens=40)
    return [step(used, data)]


def sampling(zero: Zero | None, world: int, model: str) -> object:
    """Rollouts between steps, from the very weights that are trained."""
    used = learner(student(**MODELS[model]), zero, micro_batch_tokens=40)
    prompts = [Prompt(problem=Problem(id=str(i), prompt=""), ids=(5, 6, 7 + i)) for i in range(3)]
    found = []
    for seed in range(2):
        found.append(step(used, batch(seed=seed)))
        with used.engine.materialize_policy():
            rollouts = LocalSampler(used.policy, seed=0).sample(
                prompts, Sampling(max_tokens=12), num=2, first_id=0
            )
        found[-1]["rollouts"] = [rollout.response_ids for rollout in rollouts]
    return [*found, step(used, batch(seed=2))]


def bfloat16(zero: Zero | None, world: int) -> object:
    """Updates too small for a bfloat16 weight to see one of them."""
    model = student()
    for parameter in model.model.parameters():
        parameter.data = parameter.data.bfloat16().float()
    start = {name: p.detach().clone() for name, p in model.model.named_parameters()}
    model.dtype = torch.bfloat16
    used = learner(model, zero, lr=1e-3, micro_batch_tokens=24, max_grad_norm=0.01)
    data = batch(seed=3, num=10)
    first, *_, last = [step(used, data, data.is_response_BT.float()) for _ in range(4)]
    noise = used.observe(replace(data, evidence={}), frozenset({"excess_noise"}))
    return {
        "start": start,
        "first": first,
        "last": last,
        "masters": masters(used),
        "noise": float(noise.excess_noise_BT.max()),
    }


def begin(zero: Zero | None, model: str, seed: int) -> PolicyLearner:
    """A learner whose trained weights and average depend on this seed."""
    made = student(**MODELS[model], seed=1)
    for parameter in made.model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * seed
    return learner(
        made, zero, micro_batch_tokens=40, schedule="linear", history=moving_average(7 + seed)
    )


def resumed(zero: Zero | None, world: int, model: str, *, directory: Path) -> object:
    """Two steps, a save and two more steps; and the last two again, by another learner that was
    given what was saved.
    """
    used = begin(zero, model, 0)
    for seed in range(2):
        step(used, batch(seed=seed))
    used.save(directory)
    saved = weights(used)
    found = {"straight": [step(used, batch(seed=seed)) for seed in (2, 3)], "saved": saved}
    again = begin(zero, model, 1)
    again.restore(directory)
    found["loaded"] = weights(again)
    found["again"] = [step(again, batch(seed=seed)) for seed in (2, 3)]
    again.export(directory / "export")
    return found | {"exported": weights(again), "version": again.weights().version}


def redivided(zero: Zero | None, model: str, directory: Path) -> object:
    """The last two steps of `resumed`, from what other ranks or another stage saved."""
    used = begin(zero, model, 1)
    step(used, batch(seed=9))  # moments that must not stay
    used.restore(directory)
    return {"loaded": weights(used), "again": [step(used, batch(seed=seed)) for seed in (2, 3)]}


def redivided_bfloat16(first: Zero, second: Zero, directory: Path) -> object:
    """Float32 masters at one stage, at another, and both after one more step."""

    def begun(zero: Zero) -> PolicyLearner:
        model = student()
        model.dtype = torch.bfloat16
        return learner(model, zero, micro_batch_tokens=24)

    data = batch(seed=3, num=10)
    used, again = begun(first), begun(second)
    step(used, data, data.is_response_BT.float())
    directory.mkdir(exist_ok=True)
    used.save(directory)
    again.restore(directory)
    found = {"saved": masters(used), "loaded": masters(again)}
    for other in (used, again):
        step(other, data, data.is_response_BT.float())
    return found | {"straight": masters(used), "again": masters(again)}


def paired(zero: Zero | None, world: int, model: str, objective: str) -> object:
    """Steps on pairs with contrastive weights; where there are adapters, the reference is the model
    without them.
    """
    used = learner(student(**MODELS[model]), zero, micro_batch_tokens=60)
    if model == "lora":
        used.observer.reference = None
    rule, loss = (
        Contrast(),
        {"sequence": Dpo(), "position": Dpo(aggregation="position", padded_length=30)}[objective],
    )
    found = []
    for seed, num in enumerate((5, 1, 4)):
        seen = used.observe(pairs(num, seed=seed), frozenset({"ref_logp"}))
        stats = used.step(seen, rule(seen), loss, LOSS_AGGREGATIONS["pair_mean"])
        found.append(
            {"stats": stats, "evidence": {"ref_logp": seen.ref_logp_BT}, "weights": weights(used)}
        )
    return found


LOADED = {
    "plain": {},
    "bfloat16": {"dtype": "bfloat16"},
    "tied": {},
    "lora": {"dtype": "bfloat16", "lora": {"rank": 4}},
}
"""Settings of models that are read by ranks."""


def loading_recipe(directory: Path, model: str, zero: Zero | None) -> Recipe:
    """Divergence from a teacher, with both models in directories."""
    content = {
        "name": "x",
        "steps": 10,
        "model": {"path": str(directory / "student"), **LOADED[model]},
        "teacher": {"path": str(directory / "teacher"), "dtype": "bfloat16"},
        "task": {"kind": "arithmetic"},
        "sample": {"max_tokens": 32, "group_size": 4},
        "advantage": {"kind": "none"},
        "objective": {"kind": "distill"},
        "loss_aggregation": "token_mean",
        "learn": {"lr": 0.01, "rollouts_per_step": 6, "optimizer": {"kind": "adamw", "eps": 1e-3}},
    }
    recipe = build(Recipe, content, "test")
    return replace(recipe, learn=replace(recipe.learn, zero=zero))


def write_models(directory: Path, model: str) -> None:
    """A student in several files and a teacher in one."""
    tied = model == "tied"
    pairs = {"student": policy("qwen3", tied=tied, seed=1), "teacher": policy("qwen3", seed=5)}
    for name, made in pairs.items():
        made.model.save_pretrained(
            directory / name, max_shard_size="60KB" if name == "student" else "1GB"
        )
        made.tokenizer.save_pretrained(directory / name)
    assert len(list((directory / "student").glob("*.safetensors"))) > 2


def loaded(zero: Zero | None, directory: Path, model: str) -> object:
    """A learner whose models are read from files, and one step of it."""
    if zero is not None:
        from reasontrain.learner.partition import Partition, is_partitioned

        if dist.get_rank() == 0:
            write_models(directory, model)
        dist.barrier()
        dtypes: list[str] = []
        inner = Partition.place

        def place(self: Partition, parameter: torch.nn.Parameter) -> torch.nn.Parameter:
            dtypes.append(str(parameter.dtype))
            return inner(self, parameter)

        Partition.place = place
    try:
        used = make_learner(loading_recipe(directory, model, zero))
    finally:
        if zero is not None:
            Partition.place = inner
    start = weights(used)
    data = batch(seed=3)
    stats = used.step(
        data, data.is_response_BT.float(), Distill(), LOSS_AGGREGATIONS["seq_mean_token_mean"]
    )
    answer: dict[str, object] = {
        "start": start,
        "loss": stats["loss"],
        "norm": stats["grad_norm"],
        "weights": weights(used),
    }
    if zero is None:
        return answer
    teacher = used.observer.teacher_states.models[0].policy.model
    base = [p for n, p in used.policy.model.named_parameters() if "lora_" not in n]
    divided = [*base, *teacher.parameters()]
    saved = directory / "saved"
    saved.mkdir(exist_ok=True)
    used.save(saved)
    again = make_learner(loading_recipe(directory, model, zero))
    again.restore(saved)
    return answer | {
        "restored": weights(again),
        "divided": all(is_partitioned(p) for p in divided),
        "dtypes": dtypes,
        "parts": sum(vars(p)["ds_tensor"].numel() for p in divided),
        "sizes": sum(vars(p)["ds_numel"] for p in divided),
    }


WIDE = {name: size for name, size in SIZES.items() if name != "num_hidden_layers"} | {
    "hidden_size": 512,
    "intermediate_size": 2048,
}
"""Sizes whose layers have 13 MB in float32, and the largest matrix 4 MB."""
LARGE = "large"
"""The folder of two ranks that read a model too large for every run of the tests."""


def memory_of_loading(zero: Zero, directory: Path, num_layers: int) -> object:
    """Bytes of a model, and by how many this process grew while it read its part."""
    from reasontrain.learner.partition import Partition

    directory.mkdir(exist_ok=True)
    if dist.get_rank() == 0:
        torch.manual_seed(0)
        with no_init_weights():
            config = Qwen3Config(**WIDE, num_hidden_layers=num_layers)
            model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(0.01)
        model.save_pretrained(directory)
        tokenizer().save_pretrained(directory)
        del model
    dist.barrier()
    placement = Partition(
        torch.device("cpu"),
        torch.float32,
        zero,
        LearnSettings(lr=0.01, rollouts_per_step=6, zero=zero),
    )
    with GrowthOfMemory() as growth:
        model = load(ModelSettings(path=str(directory)), trainable=True, placement=placement).model
    size = 4 * sum(vars(p)["ds_numel"] for p in model.parameters())
    return {"bytes": size, "peak": growth.peak}


def cases(world: int, out: Path) -> dict[str, Callable[[], object]]:
    """All of them, for so many ranks."""
    if out.name == FEWER:
        return redivisions(out)
    if out.name == LARGE:
        read = partial(memory_of_loading, Zero(persist_below=0), out / "wide", 38)
        return {"memory-of-loading": read}
    found: dict[str, Callable[[], object]] = {}
    zeros = {stage: Zero(stage=stage, persist_below=0) for stage in STAGES}
    for stage, zero in ((stage, zeros[stage]) for number, stage in SELECTING if number == world):
        found |= {
            f"edges-{stage}": partial(edges, zero, world),
            f"dropping-{stage}": partial(dropping, zero, world),
            f"updates-{stage}": partial(updates, zero, world),
        }
    if world not in BUDGETS:
        return found
    for stage, zero in ((stage, zeros[stage]) for number, stage in PLACES if number == world):
        for model in ("untied", "lora"):
            found[f"histories-{stage}-{model}"] = partial(histories, zero, world, model)
        for model, objective in PAIRED:
            found[f"paired-{stage}-{model}-{objective}"] = partial(
                paired, zero, world, model, objective
            )
    for stage, model in ((stage, model) for number, stage, model in MADE_OF if number == world):
        found[f"parity-{stage}-{model}"] = partial(parity, zeros[stage], world, model)
        found[f"soft-{stage}-{model}"] = partial(soft, zeros[stage], world, model)
    for stage, model in ((stage, model) for number, stage, model in SAVED if number == world):
        directory = out / f"saved-{stage}-{model}"
        directory.mkdir(exist_ok=True)
        found[f"resumed-{stage}-{model}"] = partial(
            resumed, zeros[stage], world, model, directory=directory
        )
    if world == 1:
        directory = out / "saved-plain-untied"
        directory.mkdir(exist_ok=True)
        found["resumed-plain-untied"] = partial(resumed, None, world, "untied", directory=directory)
    found["sharded"] = partial(sharded, Zero(persist_below=0), world)
    found["several_teachers"] = partial(several_teachers, Zero(persist_below=0), world)
    found["sampling-0-untied"] = partial(sampling, Zero(persist_below=0), world, "untied")
    if world == 1:
        return found
    found["sampling-100000-untied"] = partial(sampling, Zero(), world, "untied")
    found["sampling-0-tied"] = partial(sampling, Zero(persist_below=0), world, "tied")
    found["sampling-0-lora"] = partial(sampling, Zero(persist_below=0), world, "lora")
    for stage, zero in zeros.items():
        found[f"bfloat16-{stage}"] = partial(bfloat16, zero, world)
    for name, changes in SPECIAL.items():
        found[f"special-{name}"] = partial(
            parity, changes["zero"], world, "untied", **changes["learn"]
        )
    for model in LOADED:
        directory = out / f"loaded-{model}"
        directory.mkdir(exist_ok=True)
        # by default, ranks keep small weights whole once there is an engine
        persist = {} if model == "bfloat16" else {"persist_below": 0}
        zero = Zero(frozen="sharded", **persist)
        found[f"loaded-{model}"] = partial(loaded, zero, directory, model)
    found["memory-of-loading"] = partial(memory_of_loading, zeros[3], out / "wide", 7)
    found |= redivisions(out)
    stages = (Zero(stage=3, persist_below=0), Zero(stage=1))
    for first, second in (stages, stages[::-1]):
        directory = out / f"bfloat16-{first.stage}"
        found[f"redivided-bfloat16-{first.stage}"] = partial(
            redivided_bfloat16, first, second, directory
        )
    return found


def redivisions(out: Path) -> dict[str, Callable[[], object]]:
    """Those of `REDIVIDED` whose learner is made in this folder's processes."""
    return {
        f"redivided-{name}": partial(redivided, zero, model, out.parent / source)
        for name, (folder, zero, model, source) in REDIVIDED.items()
        if folder == out.name
    }


PAIRED = [("untied", "sequence"), ("untied", "position"), ("lora", "sequence")]
"""Model and aggregation of the losses of pairs."""
SAVED = [
    (1, 3, "untied"),
    *((2, stage, "untied") for stage in STAGES),
    (2, 2, "tied"),
    (2, 1, "lora"),
    (2, 3, "lora"),
]
"""Ranks, stage and model of every checkpoint."""
FEWER = "fewer"
"""The folder of one rank that reads what two have saved."""
REDIVIDED: dict[str, tuple[str, Zero | None, str, str]] = {
    "more-0": ("2", Zero(stage=0), "untied", "1/saved-3-untied"),
    "more-1": ("2", Zero(stage=1), "untied", "1/saved-3-untied"),
    "more-2": ("2", Zero(stage=2, offload_optimizer="cpu"), "untied", "1/saved-3-untied"),
    "more-3": ("2", Zero(persist_below=0), "untied", "1/saved-3-untied"),
    "plain-1": ("2", Zero(stage=1), "untied", "1/saved-plain-untied"),
    "plain-3": ("2", Zero(), "untied", "1/saved-plain-untied"),
    "stage-0-3": ("2", Zero(persist_below=0), "untied", "2/saved-0-untied"),
    "stage-1-3": (
        "2",
        Zero(offload_optimizer="cpu", offload_parameters="cpu", persist_below=0),
        "untied",
        "2/saved-1-untied",
    ),
    "stage-3-2": ("2", Zero(stage=2), "untied", "2/saved-3-untied"),
    "stage-3-0": ("2", Zero(stage=0), "untied", "2/saved-3-untied"),
    "tied-2-3": ("2", Zero(persist_below=0), "tied", "2/saved-2-tied"),
    "lora-3-1": ("2", Zero(stage=1), "lora", "2/saved-3-lora"),
    "lora-1-3": ("2", Zero(persist_below=0), "lora", "2/saved-1-lora"),
    "fewer-3": (FEWER, Zero(persist_below=0), "untied", "2/saved-2-untied"),
    "fewer-1": (FEWER, Zero(stage=1), "lora", "2/saved-3-lora"),
    "fewer-tied": (FEWER, Zero(stage=0), "tied", "2/saved-2-tied"),
    "one-1": ("here", None, "untied", "2/saved-1-untied"),
    "one-3": ("here", None, "untied", "2/saved-3-untied"),
    "one-tied": ("here", None, "tied", "2/saved-2-tied"),
    "one-lora": ("here", None, "lora", "2/saved-3-lora"),
}
"""Where a learner is made, its stage and its model, and the checkpoint that it reads."""
SPECIAL: dict[str, dict[str, object]] = {
    "persist": {"zero": Zero(), "learn": {}},
    "offload-2": {"zero": Zero(stage=2, offload_optimizer="cpu"), "learn": {}},
    "offload-3": {
        "zero": Zero(offload_optimizer="cpu", offload_parameters="cpu", persist_below=0),
        "learn": {},
    },
    "checkpointing": {"zero": Zero(persist_below=0), "learn": {"checkpointing": True}},
    "packed": {"zero": Zero(persist_below=0), "learn": {"layout": "packed"}},
    "whole": {"zero": Zero(persist_below=0), "learn": {"vocabulary": "full_logits"}},
    "unclipped-1": {"zero": Zero(stage=1), "learn": {"max_grad_norm": None}},
    "unclipped-3": {"zero": Zero(persist_below=0), "learn": {"max_grad_norm": None}},
}
if (
    find_spec("triton") and not torch.cuda.is_available()
):  # the interpreter is of machines without a GPU
    SPECIAL["triton"] = {"zero": Zero(persist_below=0), "learn": {"vocabulary": "triton"}}


def work(rank: int, world: int, address: str, out: Path) -> None:
    """Every case on this rank; one that fails ends them, since the other ranks would wait for this
    one.
    """
    from reasontrain.learner.distributed import RankAddress, join, leave

    join(RankAddress(rank, world, address, timeout_s=60.0), torch.device("cpu"))
    for name, case in cases(world, out).items():
        try:
            answer = case()
        except Exception:
            (out / f"failed-{rank}.txt").write_text(
                f"{name}: {traceback.format_exc()}", encoding="utf-8"
            )
            raise
        torch.save(answer, out / f"{name}.{rank}.pt")
    leave()
