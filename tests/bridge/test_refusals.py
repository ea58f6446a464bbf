"""Rules, settings and classes that token selection cannot work with: one sentence each, when the
trainer is built.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from trl import GRPOTrainer, SFTTrainer
from trl.experimental.gmpo import GMPOTrainer

from reasontrain.algo.token_selection import AllTokens, ShuffledWeights, Tip
from reasontrain.algo.token_selection.advantage_entropy import AdvantageEntropy
from reasontrain.bridge import GRPOTokenSelection, SFTTokenSelection
from reasontrain.bridge.selection import LOSS_WEIGHT
from reasontrain.types import Batch, UserError
from tests.bridge import trainers

ANY = {"token_selection": AllTokens()}


class Novel:
    """A rule of the user's own, which reads evidence of its own."""

    kind = "novel"
    required_evidence = frozenset({"novelty"})

    def kept_share(self, progress: float) -> float:
        return 1.0

    def __call__(self, batch: Batch) -> Tensor:
        return (batch.novelty_BT * batch.is_response_BT).float()


def test_evidence_of_a_rule_of_the_users_own_is_a_column(tmp_path: Path) -> None:
    columns = {"novelty": lambda inputs: torch.ones(inputs["input_ids"].shape)}
    trainer = trainers.sft(tmp_path, {}, token_selection=Novel(), evidence=columns)
    inputs = next(iter(trainer.get_train_dataloader()))
    (micro_batch,), _ = trainer.get_batch_samples(iter([inputs]), 1, torch.device("cpu"))
    assert micro_batch[LOSS_WEIGHT].sum() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("build", "options", "more", "message"),
    [
        (trainers.sft, {}, {"token_selection": Tip()}, "tip needs entropy.*|tip needs kl_reverse"),
        (trainers.sft, {}, {"token_selection": {"kind": "rho1"}}, "rho1 needs ref_logp.*reference"),
        (trainers.sft, {}, {"token_selection": {"kind": "prior"}}, "prior needs uncond_logp"),
        (
            trainers.grpo,
            {"beta": 0.0},
            {"token_selection": {"kind": "rho1"}},
            "rho1 needs ref_logp",
        ),
        (
            trainers.distillation,
            {},
            {"token_selection": {"kind": "sstoken"}},
            "sstoken needs attention",
        ),
        (
            trainers.distillation,
            {},
            {"token_selection": ShuffledWeights(of=AdvantageEntropy())},
            "advantage_entropy compares advantages",
        ),
        (trainers.sft, {}, {"token_selection": "stapo"}, "stapo compares advantages"),
        (trainers.sft, {}, {"token_selection": "tis_dpo"}, "tis_dpo weighs the two sides"),
        (trainers.grpo, {}, {"token_selection": "paced"}, "paced reads which rollouts are right"),
        (trainers.sft, {}, {"token_selection": {"kind": "tipp"}}, "did you mean `tip`"),
        (trainers.sft, {}, {"token_selection": {"kind": "tip", "keep": 1}}, "token_selection.keep"),
        (trainers.sft, {}, {"token_selection": "prior"}, "prior needs uncond_logp"),
        (trainers.sft, {}, ANY | {"aggregation": "mean"}, "loss_aggregation"),
        (trainers.sft, {}, ANY | {"aggregation": "pair_mean"}, "pair_mean does not fit SFTTrainer"),
        (trainers.dpo, {}, ANY | {"aggregation": "token_mean"}, "there is pair_mean"),
        (trainers.grpo, {}, ANY | {"aggregation": "sampled_token_mean"}, "response_token_mean"),
        (trainers.sft, {}, ANY | {"evidence": {"logp": len}}, "logp is no kind of evidence"),
        (trainers.sft, {}, {"token_selection": Novel()}, "novel needs novelty, which is of"),
        (trainers.sft, {"loss_type": "dft"}, ANY, "loss_type='dft'"),
        (trainers.sft, {"label_smoothing_factor": 0.1}, ANY, "label_smoothing_factor"),
        (
            trainers.sft,
            {"packing": True, "packing_strategy": "wrapped", "max_length": 24},
            ANY,
            "packing_strategy='wrapped'",
        ),
        (trainers.dpo, {"loss_type": ["sigmoid", "sft"]}, ANY, "'sft' divides"),
        (trainers.dpo, {"use_weighting": True}, ANY, "use_weighting"),
        (trainers.grpo, {"top_entropy_quantile": 0.2}, ANY, '"top_entropy", "keep_ratio": 0.2'),
        (trainers.grpo, {"importance_sampling_level": "sequence"}, ANY, "one loss, so selected"),
        (trainers.grpo, {"entropy_coef": 0.1}, ANY, "entropy_coef"),
        (
            trainers.grpo,
            {"steps_per_generation": 2},
            ANY,
            "steps_per_generation=2 is no multiple of gradient_accumulation_steps=3",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:`label_smoothing_factor` is deprecated:FutureWarning")
def test_what_cannot_work_is_refused(
    build: Callable[..., object],
    options: dict[str, object],
    more: dict[str, object],
    message: str,
    tmp_path: Path,
) -> None:
    with pytest.raises(UserError, match=message) as error:
        build(tmp_path, options, **more)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("rule", [Tip, len, 3])
def test_what_is_no_rule_is_one_sentence(rule: object) -> None:
    with pytest.raises(UserError, match="token_selection is a rule, which has `required_evidence`"):
        SFTTokenSelection._settings(trainers.Sft, rule, None)  # type: ignore[arg-type]


def test_the_mixin_stands_before_its_own_trainer() -> None:
    with pytest.raises(UserError, match=r"class Wrong\(SFTTokenSelection, SFTTrainer\)"):
        type("Wrong", (SFTTokenSelection, GRPOTrainer), {})
    with pytest.raises(UserError, match=r"class Wrong\(SFTTokenSelection, SFTTrainer\)"):
        type("Wrong", (SFTTrainer, SFTTokenSelection), {})


def test_a_trainer_with_another_loss_is_refused() -> None:
    with pytest.raises(UserError, match=r"GMPOTrainer has a loss of its own \(_compute_loss\)"):
        type("Other", (GRPOTokenSelection, GMPOTrainer), {})


def test_a_class_of_the_user_may_extend_the_loss() -> None:
    own = type("Own", (trainers.Grpo,), {"_compute_loss": trainers.Grpo._compute_loss})
    assert issubclass(own, GRPOTrainer)
