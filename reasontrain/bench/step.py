"""Whole steps and updates compared with TRL's trainers.

Model, rollouts, lengths, loss and optimiser are the same; each contestant runs its own code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial

import torch

from reasontrain.algo.objectives import Distill, Dpo, Grpo, Nll
from reasontrain.algo.token_selection import (
    AdvantageEntropy,
    Contrast,
    LinearSchedule,
    MaxVariance,
    Prior,
    SsToken,
)
from reasontrain.bench import large, peers, ranks, reasontrain_side
from reasontrain.bench.case import (
    BenchCase,
    BenchMachine,
    Contestant,
    Goal,
    Numbers,
    Setting,
    Variant,
    Work,
)
from reasontrain.bench.reasontrain_side import BenchMethod
from reasontrain.bench.workload import QWEN3_06B, StepWorkload, Workload, constant
from reasontrain.data.micro_batches import Layout
from reasontrain.models import Shape
from reasontrain.types import Batch

GROUP = 4
SMALL = Shape(
    hidden_size=256,
    intermediate_size=1024,
    num_layers=8,
    num_heads=4,
    num_kv_heads=2,
    head_dim=64,
    vocab_size=32_000,
    tied=True,
    qk_norm=True,
)
REFERENCE_LOGP = -10.4
"""Log-prob of every token under the reference of DPO, in nats: near that of a random model."""

OPD = BenchMethod(Distill(), "token_mean")
GRPO = BenchMethod(Grpo(), "token_mean")
HALVED = replace(GRPO, rollout_filter=MaxVariance(keep_ratio=LinearSchedule(init=0.5, final=0.5)))
D3S = replace(
    HALVED, token_selection=AdvantageEntropy(keep_ratio=LinearSchedule(init=0.3, final=0.3))
)
CDPO = BenchMethod(Dpo(beta=0.1), "pair_mean", Contrast())
PRIOR = BenchMethod(Nll(), "response_token_mean", Prior())
SSTOKEN = BenchMethod(Nll(), "token_mean", SsToken())

WorkContext = AbstractContextManager[Work]


def rows(machine: BenchMachine) -> Sequence[BenchCase]:
    """The cases that fit this machine."""
    workload = _workload(machine)
    cases = [
        _opd_step(workload, machine),
        _opd_update(workload, machine),
        *_grpo(workload, machine),
        *_offline(workload, machine),
    ]
    return [
        *cases,
        *(large.rows(machine) if machine.device.type == "cuda" else [ranks.row(workload, machine)]),
    ]


def _workload(machine: BenchMachine) -> Workload:
    """Qwen3-0.6B's shape on a GPU; on a CPU, a model with half of its parameters in the head."""
    if machine.device.type == "cuda":
        return Workload(
            shape=QWEN3_06B,
            teacher=QWEN3_06B,
            rollouts=64,
            limit=1024 if machine.quick else 2048,
            device=machine.device,
            dtype=torch.bfloat16,
        )
    return Workload(
        shape=SMALL,
        teacher=SMALL,
        rollouts=8 if machine.quick else 16,
        limit=64 if machine.quick else 128,
        device=machine.device,
        dtype=torch.float32,
    )


def _opd_step(workload: Workload, machine: BenchMachine) -> BenchCase:
    return BenchCase(
        name="opd step",
        description="a whole step of on-policy distillation: sampling, teacher, reverse KL, AdamW",
        work=workload.settings(),
        units=("tokens", float(workload.tokens)),
        subject=_reasontrain(workload, machine, partial(reasontrain_side.opd_step, workload, OPD)),
        peer=_peer("TRL DistillationTrainer", workload, machine, partial(peers.opd_step, workload)),
        tolerance=0.0,
        goals=(Goal(of="time", at_most=0.5),),
        remark="Both contestants sample from their own model, and each response ends at the same "
        "length in both: in TRL's `generate` by a processor of the logits, in reasontrain's "
        "sampler by the budget of the sequence. Their numbers of tokens must agree.",
    )


def _opd_update(workload: Workload, machine: BenchMachine) -> BenchCase:
    return BenchCase(
        name="opd update",
        description="the same from rollouts on: trunk, teacher, reverse KL, AdamW",
        work=workload.settings(),
        units=("tokens", float(workload.tokens)),
        subject=_reasontrain(
            workload, machine, partial(reasontrain_side.update, workload, workload.batch, OPD)
        ),
        peer=_peer(
            "TRL DistillationTrainer", workload, machine, partial(peers.opd_update, workload)
        ),
        tolerance=_tolerance(workload),
        goals=(Goal(of="time", at_most=1 / 1.5),),
    )


def _grpo(workload: Workload, machine: BenchMachine) -> list[BenchCase]:
    """Cases of GRPO, and of methods that learn from fewer rollouts or tokens than TRL does."""
    name = "TRL GRPOTrainer"
    batch = partial(on_policy, workload)
    trl = partial(peers.grpo_update, workload, GROUP)
    plain = BenchCase(
        name="grpo update",
        description="GRPO from rollouts on: log-probs, clipped ratio, AdamW",
        work=workload.settings() | {"group": GROUP},
        units=("tokens", float(workload.tokens)),
        subject=_reasontrain(
            workload, machine, partial(reasontrain_side.update, workload, batch, GRPO)
        ),
        peer=_peer(name, workload, machine, trl),
        tolerance=_tolerance(workload),
        goals=(Goal(of="time", at_most=1 / 1.5),),
        remark="TRL computes the entropy of every token as well, for its log.",
    )
    fewer = [
        replace(
            plain,
            name=name_of_case,
            description=f"the same, {description}, beside GRPO with all of them",
            subject=_reasontrain(
                workload,
                machine,
                partial(
                    _count_tokens,
                    workload,
                    partial(reasontrain_side.update, workload, batch, method),
                ),
            ),
            peer=_peer(name, workload, machine, partial(_count_tokens, workload, trl)),
            goals=(Goal(of="time", at_most=1 / 2.5),),
            tolerance=0.0,
            remark="TRL learns from every rollout and reasontrain does not: only the numbers of "
            "tokens in the batch must agree.",
        )
        for name_of_case, description, method in (
            (
                "grpo update, half",
                "from the half of the rollouts whose advantages vary most",
                HALVED,
            ),
            (
                "d3s update",
                "from the 30 % of their tokens with the largest |A| x entropy, where entropy is "
                "observed first",
                D3S,
            ),
        )
    ]
    return [plain, *fewer]


def _offline(workload: Workload, machine: BenchMachine) -> list[BenchCase]:
    """Cases of pairs and of demonstrations; the goals are at most TRL's time and memory."""
    goals = (Goal(of="time", at_most=1.0), Goal(of="memory", at_most=1.0))
    cdpo = BenchCase(
        name="cdpo update",
        description="cDPO from pairs, scores and the reference's log-probs on, beside DPO",
        work=workload.settings(),
        units=("tokens", float(workload.tokens)),
        subject=_reasontrain(
            workload,
            machine,
            partial(reasontrain_side.update, workload, partial(pairs, workload), CDPO),
        ),
        peer=_peer(
            "TRL DPOTrainer",
            workload,
            machine,
            partial(peers.dpo_update, workload, REFERENCE_LOGP),
            per_item=2,
        ),
        tolerance=_tolerance(workload),
        goals=goals,
        remark="With these scores every weight is 1 and cDPO is DPO; other scores cost the same. "
        "TRL 1.16 cannot pack pairs.",
    )
    prior = replace(
        cdpo,
        name="prior update",
        description="PRIOR from demonstrations and stored log-probs on, beside fine-tuning",
        subject=_reasontrain(
            workload,
            machine,
            partial(reasontrain_side.update, workload, partial(demonstrations, workload), PRIOR),
        ),
        peer=_tuning(workload, machine, partial(peers.sft_update, workload)),
        remark="All stored log-probs are equal, which makes PRIOR fine-tuning; others cost the "
        "same.",
    )
    sstoken = replace(
        prior,
        name="sstoken update",
        description="ssToken (60 % of the tokens, by the model's gain since an earlier one and by "
        "attention), beside fine-tuning",
        subject=_reasontrain(
            workload,
            machine,
            partial(
                _count_tokens,
                workload,
                partial(
                    reasontrain_side.update, workload, partial(demonstrations, workload), SSTOKEN
                ),
            ),
        ),
        peer=_tuning(
            workload, machine, partial(_count_tokens, workload, partial(peers.sft_update, workload))
        ),
        tolerance=0.0,
        remark="ssToken runs two more forwards than fine-tuning, of the model and of an earlier "
        "one; only the numbers of tokens in the batch must agree.",
    )
    return [cdpo, prior, sstoken]


def on_policy(workload: StepWorkload) -> Batch:
    """A batch of groups, with the policy's log-probs before its first step."""
    batch = workload.batch(group=GROUP)
    return reasontrain_side.learner(workload, GRPO, 2048, "padded").observe(
        batch, frozenset({"old_logp"})
    )


def pairs(workload: Workload) -> Batch:
    """A batch of pairs whose tokens all have weight 1."""
    batch = workload.batch(group=2, paired=True)
    return batch.with_evidence(
        {"ref_logp": constant(batch, REFERENCE_LOGP), "ce_logscore": constant(batch, -1e30)}
    )


def demonstrations(workload: Workload) -> Batch:
    """A batch of responses without advantages, whose stored log-probs are all equal."""
    batch = workload.batch()
    return batch.with_evidence({"uncond_logp": constant(batch, -0.5)})


def _tolerance(workload: Workload) -> float:
    """Allowed difference: rounding of sums in float32, of every product in bfloat16."""
    return 1e-4 if workload.dtype == torch.float32 else 0.03


def _reasontrain(
    workload: Workload, machine: BenchMachine, setup: Callable[[int, Layout], WorkContext]
) -> Contestant:
    """The contestant reasontrain, with variants of micro-batch layout and token budget."""
    layouts: tuple[Layout, ...] = ("packed",) if machine.quick else ("padded", "packed")
    unit = 512 if machine.device.type == "cpu" else 16384
    budgets = (unit,) if machine.quick else (unit // 2, unit, 4 * unit)
    variants = [
        Variant(
            settings={"micro_batch_tokens": budget, "layout": layout},
            setup=partial(setup, budget, layout),
        )
        for layout in layouts
        for budget in budgets
    ]
    return Contestant(name="reasontrain", variants=tuple(variants))


def _sizes(workload: Workload, machine: BenchMachine, per_item: int = 1) -> list[int]:
    """Batch sizes to search for TRL, in items of `per_item` rollouts."""
    most = workload.rollouts // per_item
    return [
        size
        for size in ((4 // per_item,) if machine.quick else (1, 2, 4, 8, 16, 32))
        if size <= most
    ]


def _peer(
    name: str,
    workload: Workload,
    machine: BenchMachine,
    setup: Callable[[int], WorkContext],
    per_item: int = 1,
) -> Contestant:
    """A trainer of TRL, with variants of batch size and gradient accumulation."""
    most = workload.rollouts // per_item
    variants = [
        Variant(
            settings={
                "per_device_train_batch_size": size,
                "gradient_accumulation_steps": most // size,
            },
            setup=partial(setup, size),
        )
        for size in _sizes(workload, machine, per_item)
    ]
    return Contestant(name=name, variants=tuple(variants))


def _tuning(
    workload: Workload, machine: BenchMachine, setup: Callable[[int, int | None, bool], WorkContext]
) -> Contestant:
    """TRL's `SFTTrainer`: padded, padded by similar lengths, or packed; a quick run only packs."""
    padded = [
        Variant(
            settings={
                "per_device_train_batch_size": size,
                "group_by_length": by_length,
                "packing": False,
            },
            setup=partial(setup, size, None, by_length),
        )
        for size in _sizes(workload, machine)
        for by_length in (() if machine.quick else (False, True))
    ]
    lengths = (256, 512, 1024) if machine.device.type == "cpu" else (8192, 16384, 32768)
    packed = [
        Variant(
            settings={"packing": True, "max_length": length}, setup=partial(setup, 1, length, False)
        )
        for length in (lengths[1:2] if machine.quick else lengths)
    ]
    return Contestant(name="TRL SFTTrainer", variants=(*padded, *packed))


@contextmanager
def _count_tokens(
    workload: Workload, setup: Callable[..., WorkContext], *settings: Setting | None
) -> Iterator[Work]:
    """The same work, with the number of tokens in the batch as its only number.

    It is for contestants that learn from different tokens, so that their losses differ.
    """
    with setup(*settings) as work:

        def counted() -> Numbers:
            work()
            return {"tokens of the batch": float(workload.tokens)}

        yield counted
