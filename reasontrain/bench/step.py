"""Whole steps and updates beside TRL's trainers: the same model, rollouts, lengths, loss and
optimiser, each by its own code.
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
from reasontrain.bench.reasontrain_side import Method
from reasontrain.bench.workload import QWEN3_06B, Workload, constant
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
"""Of every token by the reference of DPO, in nats: near what a random model gives."""

OPD = Method(Distill(), "token_mean")
GRPO = Method(Grpo(), "token_mean")
HALVED = replace(GRPO, keep=MaxVariance(keep_ratio=LinearSchedule(init=0.5, final=0.5)))
D3S = replace(
    HALVED, token_selection=AdvantageEntropy(keep_ratio=LinearSchedule(init=0.3, final=0.3))
)
CDPO = Method(Dpo(beta=0.1), "pair_mean", Contrast())
PRIOR = Method(Nll(), "response_token_mean", Prior())
SSTOKEN = Method(Nll(), "token_mean", SsToken())

Made = AbstractContextManager[Work]


def rows(place: BenchMachine) -> Sequence[BenchCase]:
    """Every row that this machine can hold."""
    given = _given(place)
    found = [
        _opd_step(given, place),
        _opd_update(given, place),
        *_grpo(given, place),
        *_offline(given, place),
    ]
    return [
        *found,
        *(large.rows(place) if place.device.type == "cuda" else [ranks.row(given, place)]),
    ]


def _given(place: BenchMachine) -> Workload:
    """A model whose head is half of its parameters on a CPU, Qwen3-0.6B's shape on a GPU."""
    if place.device.type == "cuda":
        rollouts, limit, shape, dtype = 64, 1024 if place.quick else 2048, QWEN3_06B, torch.bfloat16
    else:
        rollouts, limit = (8, 64) if place.quick else (16, 128)
        shape, dtype = SMALL, torch.float32
    return Workload(
        shape=shape, teacher=shape, rollouts=rollouts, limit=limit, device=place.device, dtype=dtype
    )


def _opd_step(given: Workload, place: BenchMachine) -> BenchCase:
    return BenchCase(
        name="opd step",
        what="a whole step of on-policy distillation: sample, ask the teacher, reverse KL, AdamW",
        work=given.settings(),
        units=("tokens", float(given.tokens)),
        ours=_ours(given, place, partial(reasontrain_side.opd_step, given, OPD)),
        peer=_peer("TRL DistillationTrainer", given, place, partial(peers.opd_step, given)),
        tolerance=0.0,
        goals=(Goal(of="time", at_most=0.5),),
        remark="Both sides draw tokens from their own model, and each response ends at the same "
        "length on both: in TRL's "
        "`generate` by a processor of the logits, in our sampler by the budget of the row. "
        "They agree on the number of tokens.",
    )


def _opd_update(given: Workload, place: BenchMachine) -> BenchCase:
    return BenchCase(
        name="opd update",
        what="the same from given rollouts on: trunk, teacher, reverse KL, AdamW",
        work=given.settings(),
        units=("tokens", float(given.tokens)),
        ours=_ours(given, place, partial(reasontrain_side.update, given, given.batch, OPD)),
        peer=_peer("TRL DistillationTrainer", given, place, partial(peers.opd_update, given)),
        tolerance=_tolerance(given),
        goals=(Goal(of="time", at_most=1 / 1.5),),
    )


def _grpo(given: Workload, place: BenchMachine) -> list[BenchCase]:
    """Plain, and where fewer rollouts or tokens are learned from than TRL learns from."""
    name, batch, trl = (
        "TRL GRPOTrainer",
        partial(on_policy, given),
        partial(peers.grpo_update, given, GROUP),
    )
    plain = BenchCase(
        name="grpo update",
        what="GRPO from given rollouts on: log-probs, clipped ratio, AdamW",
        work=given.settings() | {"group": GROUP},
        units=("tokens", float(given.tokens)),
        ours=_ours(given, place, partial(reasontrain_side.update, given, batch, GRPO)),
        peer=_peer(name, given, place, trl),
        tolerance=_tolerance(given),
        goals=(Goal(of="time", at_most=1 / 1.5),),
        remark="TRL computes the entropy of every token as well, for its log.",
    )
    fewer = [
        replace(
            plain,
            name=name_of_row,
            what=f"the same, {what}, beside GRPO with all of them",
            ours=_ours(
                given,
                place,
                partial(_handed, given, partial(reasontrain_side.update, given, batch, method)),
            ),
            peer=_peer(name, given, place, partial(_handed, given, trl)),
            goals=(Goal(of="time", at_most=1 / 2.5),),
            tolerance=0.0,
            remark="TRL learns from every rollout and we do not: the sides agree on how many "
            "tokens they are handed.",
        )
        for name_of_row, what, method in (
            (
                "grpo update, half",
                "from the half of the rollouts whose advantages vary most",
                HALVED,
            ),
            (
                "d3s update",
                "from those and of them the 30 % of the tokens with the largest |A| x "
                "entropy, which is observed",
                D3S,
            ),
        )
    ]
    return [plain, *fewer]


def _offline(given: Workload, place: BenchMachine) -> list[BenchCase]:
    """Learning from pairs and from demonstrations; the goals are time and memory that are not above
    TRL's.
    """
    goals = (Goal(of="time", at_most=1.0), Goal(of="memory", at_most=1.0))
    cdpo = BenchCase(
        name="cdpo update",
        what="cDPO from pairs, scores and the reference's log-probs on, beside DPO",
        work=given.settings(),
        units=("tokens", float(given.tokens)),
        ours=_ours(
            given, place, partial(reasontrain_side.update, given, partial(pairs, given), CDPO)
        ),
        peer=_peer(
            "TRL DPOTrainer",
            given,
            place,
            partial(peers.dpo_update, given, REFERENCE_LOGP),
            share=2,
        ),
        tolerance=_tolerance(given),
        goals=goals,
        remark="Scores are such that every weight is 1, where cDPO is DPO; others cost the same. "
        "TRL 1.16 cannot pack pairs.",
    )
    prior = replace(
        cdpo,
        name="prior update",
        what="PRIOR from demonstrations and stored log-probs on, beside fine-tuning",
        ours=_ours(
            given,
            place,
            partial(reasontrain_side.update, given, partial(demonstrations, given), PRIOR),
        ),
        peer=_tuning(given, place, partial(peers.sft_update, given)),
        remark="The stored log-probs are all the same, where PRIOR is fine-tuning; others cost "
        "the same.",
    )
    sstoken = replace(
        prior,
        name="sstoken update",
        what="ssToken (60 % of the tokens, by the model's gain since an earlier one and by "
        "attention), beside fine-tuning",
        ours=_ours(
            given,
            place,
            partial(
                _handed,
                given,
                partial(reasontrain_side.update, given, partial(demonstrations, given), SSTOKEN),
            ),
        ),
        peer=_tuning(given, place, partial(_handed, given, partial(peers.sft_update, given))),
        tolerance=0.0,
        remark="ssToken runs two forwards more, of the model and of an earlier one, which "
        "fine-tuning does not; the sides agree "
        "on how many tokens they are handed.",
    )
    return [cdpo, prior, sstoken]


def on_policy(given: Workload) -> Batch:
    """Rollouts in groups, with the log-probs that the policy gives them before its first step."""
    batch = given.batch(group=GROUP)
    return reasontrain_side.learner(given, GRPO, 2048, "padded").observe(
        batch, frozenset({"old_logp"})
    )


def pairs(given: Workload) -> Batch:
    """Pairs whose tokens all weigh the same."""
    batch = given.batch(group=2, paired=True)
    return batch.with_evidence(
        {"ref_logp": constant(batch, REFERENCE_LOGP), "ce_logscore": constant(batch, -1e30)}
    )


def demonstrations(given: Workload) -> Batch:
    """Responses without credit, whose stored log-probs are all the same."""
    batch = given.batch()
    return batch.with_evidence({"uncond_logp": constant(batch, -0.5)})


def _tolerance(given: Workload) -> float:
    """Rounding of sums in float32; in bfloat16, of every product."""
    return 1e-4 if given.dtype == torch.float32 else 0.03


def _ours(given: Workload, place: BenchMachine, made: Callable[[int, Layout], Made]) -> Contestant:
    """Ways to cut a step into micro-batches."""
    layouts: tuple[Layout, ...] = ("packed",) if place.quick else ("padded", "packed")
    unit = 512 if place.device.type == "cpu" else 16384
    budgets = (unit,) if place.quick else (unit // 2, unit, 4 * unit)
    ways = [
        Variant(
            settings={"micro_batch_tokens": budget, "layout": layout},
            ready=partial(made, budget, layout),
        )
        for layout in layouts
        for budget in budgets
    ]
    return Contestant(name="reasontrain", ways=tuple(ways))


def _sizes(given: Workload, place: BenchMachine, share: int = 1) -> list[int]:
    """Rollouts (or pairs of them) in one of TRL's forwards."""
    most = given.rollouts // share
    return [
        size for size in ((4 // share,) if place.quick else (1, 2, 4, 8, 16, 32)) if size <= most
    ]


def _peer(
    name: str, given: Workload, place: BenchMachine, made: Callable[[int], Made], share: int = 1
) -> Contestant:
    """Ways to cut a step by TRL's batch size and accumulation."""
    most = given.rollouts // share
    ways = [
        Variant(
            settings={
                "per_device_train_batch_size": size,
                "gradient_accumulation_steps": most // size,
            },
            ready=partial(made, size),
        )
        for size in _sizes(given, place, share)
    ]
    return Contestant(name=name, ways=tuple(ways))


def _tuning(
    given: Workload, place: BenchMachine, made: Callable[[int, int, bool], Made]
) -> Contestant:
    """TRL pads, with neighbours of like length or not, or packs; a quick run does the last alone."""
    padded = [
        Variant(
            settings={
                "per_device_train_batch_size": size,
                "group_by_length": by_length,
                "packing": False,
            },
            ready=partial(made, size, 0, by_length),
        )
        for size in _sizes(given, place)
        for by_length in (() if place.quick else (False, True))
    ]
    lengths = (256, 512, 1024) if place.device.type == "cpu" else (8192, 16384, 32768)
    packed = [
        Variant(
            settings={"packing": True, "max_length": length}, ready=partial(made, 1, length, False)
        )
        for length in (lengths[1:2] if place.quick else lengths)
    ]
    return Contestant(name="TRL SFTTrainer", ways=(*padded, *packed))


@contextmanager
def _handed(given: Workload, made: Callable[..., Made], *way: Setting) -> Iterator[Work]:
    """The same work, of which it is said how many tokens it is handed, where the two sides do not
    learn from the same ones.
    """
    with made(*way) as work:

        def handed() -> Numbers:
            work()
            return {"tokens handed over": float(given.tokens)}

        yield handed
