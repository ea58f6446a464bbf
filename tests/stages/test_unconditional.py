"""The reference that does not see the condition: what it scores, how it is tuned, and that it works
once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from reasontrain import models
from reasontrain.algo.objectives import Nll
from reasontrain.algo.token_selection import Prior
from reasontrain.data.prompts import Encoder, PromptSettings
from reasontrain.data.replies import encode_demonstrations
from reasontrain.learner.policy_learner import PolicyLearner
from reasontrain.learner.scoring import logp
from reasontrain.models import ModelSettings, testbed
from reasontrain.recipe import (
    LearnSettings,
    Recipe,
    SmallReference,
    UncondBase,
    Unconditional,
    UncondTuned,
)
from reasontrain.run.unconditional import COLUMN, with_uncond_logp
from reasontrain.stages import unconditional
from reasontrain.stages.unconditional import cut_parts, describe_column, fill_store, fold_of
from reasontrain.tasks.arithmetic import Arithmetic
from reasontrain.types import Batch, Problem, Rollout, Stats, TokenKind, UserError
from tests.tiny import ARCHITECTURES, VOCABULARY, policy, tokenizer

HEADER = (3, 4)


def responses(num: int = 8, seed: int = 0) -> list[Rollout]:
    """Random responses of many lengths after one header."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 30, (num,), generator=draw).tolist()
    return [
        Rollout(
            problem=Problem(id=f"p{i}", prompt=""),
            id=i,
            group=i,
            prompt_ids=HEADER,
            response_ids=tuple(torch.randint(5, VOCABULARY, (n,), generator=draw).tolist()),
        )
        for i, n in enumerate(lengths)
    ]


# ---- the scoring path


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_log_probs_are_those_of_full_logits_and_batches_agree(architecture: str) -> None:
    model, scored = policy(architecture), responses()
    found = logp(model, scored, micro_batch_tokens=10_000)  # all eight together
    for rollout, column in zip(scored, found, strict=True):
        ids = torch.tensor([[*HEADER, *rollout.response_ids]])
        with torch.no_grad():
            full_TV = model.model(ids, use_cache=False).logits[0].float().log_softmax(-1)
        expected = full_TV[1:-1].gather(1, ids[0, 2:, None])[
            :, 0
        ]  # the header's last token predicts the first; it is not scored
        assert column == pytest.approx(expected.tolist(), abs=1e-5)
    for one, together in zip(logp(model, scored, micro_batch_tokens=1), found, strict=True):
        assert one == pytest.approx(together, abs=1e-4)


def test_a_response_token_is_scored_by_what_precedes_it_alone() -> None:
    model, (first, *_) = policy(), responses(seed=3)
    changed = dataclasses.replace(
        first, response_ids=(*first.response_ids[:4], 77, *first.response_ids[5:])
    )
    before, after = (logp(model, [rollout], 100)[0] for rollout in (first, changed))
    assert before[:4] == after[:4]
    assert before[4] != after[4]
    assert before[5] != after[5]


def test_turns_that_are_read_inside_a_response_have_a_number_and_are_not_tuned_on() -> None:
    """A stored column has one number per response token, whatever is learned of them."""
    model = policy()
    plain = Rollout(
        problem=Problem(id="p", prompt=""),
        id=0,
        group=0,
        prompt_ids=(5,),
        response_ids=(6, 7, 8),
    )
    kinds = (int(TokenKind.RESPONSE), int(TokenKind.PROMPT), int(TokenKind.RESPONSE))
    turns = dataclasses.replace(plain, kinds=kinds, loss_weight=(0.5, 1.0, 1.0))
    assert logp(model, [turns], 100) == logp(model, [plain], 100)
    written = list(unconditional._lines([plain, turns], ModelSettings(path="testbed:student")))
    assert [row.get("loss_weight") for row in written] == [None, [0.5, 0.0, 1.0]]


# ---- a recipe's column


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("models") / "student"
    shape = testbed.TinyShape(
        hidden_size=32,
        intermediate_size=48,
        num_layers=1,
        num_heads=2,
        num_key_value_heads=1,
        head_dim=16,
    )
    testbed.build(where, shape)
    return where


Column = Callable[..., list[Rollout]]
TUNED = UncondTuned(lr=0.01, rollouts_per_step=8)


@pytest.fixture
def column(student: Path, tmp_path: Path) -> Column:
    """The demonstrations of 40 arithmetic problems with their column."""
    encoder = Encoder(tokenizer(), PromptSettings(), 4096)
    task = Arithmetic(num_problems=40)

    def run(
        settings: Unconditional | None = TUNED,
        *,
        path: Path = student,
        change: Callable[[list[Rollout]], list[Rollout]] = list,
    ) -> list[Rollout]:
        recipe = Recipe(
            name="r",
            steps=1,
            model=ModelSettings(path=str(path)),
            task=task,
            objective=Nll(),
            loss_aggregation="response_token_mean",
            learn=LearnSettings(lr=0.1, rollouts_per_step=4, micro_batch_tokens=500),
            token_selection=Prior(),
            unconditional=settings,
            out=str(tmp_path),
        )
        written, _ = encode_demonstrations(encoder, task.problems())
        demonstrations = change(written)
        store = fill_store(recipe, encoder, demonstrations)
        return with_uncond_logp(settings or TUNED, encoder, demonstrations, store)

    return run


def columns(rollouts: Sequence[Rollout]) -> list[tuple[float, ...]]:
    return [rollout.evidence[COLUMN] for rollout in rollouts]


def stores(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "stages").glob("uncond_logp-*"))


def test_the_base_reference_is_the_start_checkpoint_without_the_prompt(
    column: Column, student: Path
) -> None:
    found = column(UncondBase())
    model = models.load(ModelSettings(path=str(student)))
    header = tokenizer()("<|im_start|>assistant\n", add_special_tokens=False)["input_ids"]
    expected = logp(
        model, [dataclasses.replace(r, prompt_ids=tuple(header)) for r in found[:3]], 500
    )
    for one, other in zip(columns(found[:3]), expected, strict=True):
        assert list(one) == pytest.approx(other, abs=1e-5)


def test_a_column_is_computed_once(
    column: Column, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = column()
    files = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("[!.]*") if p.is_file()}
    monkeypatch.setattr(
        unconditional.models, "load", lambda *_, **__: pytest.fail("a model was loaded")
    )
    assert columns(column()) == columns(first)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("[!.]*") if p.is_file()} == files


@pytest.mark.parametrize(
    "settings", [TUNED, dataclasses.replace(TUNED, lora=None)], ids=["adapter", "all weights"]
)
def test_interrupted_it_goes_on_with_the_parts_that_are_left(
    column: Column, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: UncondTuned
) -> None:
    monkeypatch.setattr(
        unconditional,
        "cut_parts",
        lambda rollouts, folds: cut_parts(rollouts, folds, part_tokens=300),
    )
    first = column(settings)
    parts = sorted(tmp_path.rglob("part-*.parquet"))
    assert len(parts) > 4
    kept = {p: p.stat().st_mtime_ns for p in parts if p != parts[2]}
    parts[2].unlink()
    monkeypatch.setattr(
        PolicyLearner, "step", lambda *_: pytest.fail("the reference was tuned again")
    )
    assert columns(column(settings)) == columns(first)
    assert {p: p.stat().st_mtime_ns for p in kept} == kept


def test_another_prompt_changes_no_column_and_another_response_changes_the_store(
    column: Column, tmp_path: Path
) -> None:
    first = column()

    def other_prompts(written: list[Rollout]) -> list[Rollout]:
        return [dataclasses.replace(r, prompt_ids=(9, 9, *r.prompt_ids)) for r in written]

    (store,) = stores(tmp_path)
    store.rename(tmp_path / "away")
    assert columns(column(change=other_prompts)) == columns(first)  # computed again
    assert stores(tmp_path) == [store]
    column(
        UncondBase(),
        change=lambda written: [dataclasses.replace(written[0], response_ids=(9,)), *written[1:]],
    )
    assert len(stores(tmp_path)) == 2


def test_other_weights_are_another_column(column: Column, student: Path, tmp_path: Path) -> None:
    first = column(UncondBase())
    other = tmp_path / "other"
    other.mkdir()
    for file in student.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    weights = load_file(other / "model.safetensors")
    weights["model.norm.weight"] *= 1.5
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    assert columns(column(UncondBase(), path=other)) != columns(first)
    assert len(stores(tmp_path)) == 2


def test_tuning_sees_each_response_once_without_its_prompt_and_learns(
    column: Column, monkeypatch: pytest.MonkeyPatch, student: Path
) -> None:
    seen: list[Batch] = []
    losses: list[float] = []
    inner = PolicyLearner.step

    def watched(self: PolicyLearner, batch: Batch, *given: object) -> Stats:
        seen.append(batch)
        stats = inner(self, batch, *given)
        losses.append(stats["loss"])
        return stats

    monkeypatch.setattr(PolicyLearner, "step", watched)
    base, tuned = (columns(column(settings)) for settings in (UncondBase(), TUNED))
    assert len(seen) == 5
    assert sorted(i for batch in seen for i in batch.rollout_B.tolist()) == list(range(40))
    header = tokenizer()("<|im_start|>assistant\n", add_special_tokens=False)["input_ids"]
    assert all(batch.ids_BT[:, : len(header)].tolist() == [header] * 8 for batch in seen)
    assert sum(map(sum, tuned)) > sum(map(sum, base))
    # The loss is a mean over tokens: that of transformers' own logits at the first step.
    first, model = seen[0], models.load(ModelSettings(path=str(student))).model
    with torch.no_grad():
        logp_BTV = model(first.ids_BT).logits[:, :-1].double().log_softmax(-1)
    logp_BT = logp_BTV.gather(2, first.ids_BT[:, 1:, None])[..., 0]
    assert losses[0] == pytest.approx(float(-logp_BT[first.is_response_BT[:, 1:]].mean()), abs=1e-4)


def test_each_fold_is_scored_by_a_reference_that_never_saw_it(
    column: Column, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tuned_on: list[set[tuple[int, ...]]] = []
    scored: list[set[tuple[int, ...]]] = []
    tune, score = unconditional.tune_reference, unconditional.logp

    def watched(
        recipe: Recipe,
        settings: UncondTuned,
        model: ModelSettings,
        tuning_set: Sequence[Rollout],
        *rest: object,
    ) -> Path:
        tuned_on.append({r.response_ids for r in tuning_set})
        return tune(recipe, settings, model, tuning_set, *rest)

    def scoring(
        model: models.Policy, rollouts: Sequence[Rollout], budget: int
    ) -> list[list[float]]:
        scored.append({r.response_ids for r in rollouts})
        return score(model, rollouts, budget)

    monkeypatch.setattr(unconditional, "tune_reference", watched)
    monkeypatch.setattr(unconditional, "logp", scoring)

    def twice(written: list[Rollout]) -> list[Rollout]:
        return [
            dataclasses.replace(r, response_ids=written[i % 20].response_ids)
            for i, r in enumerate(written)
        ]

    found = column(dataclasses.replace(TUNED, folds=2), change=twice)
    assert len(found) == 40
    assert len(tuned_on) == len(scored) == 2
    assert all(not learned & judged for learned, judged in zip(tuned_on, scored, strict=True))
    assert scored[0] | scored[1] == {r.response_ids for r in found}


@pytest.mark.parametrize("folds", [1, 3])
def test_parts_hold_every_response_once_by_fold_and_length(folds: int) -> None:
    rollouts = responses(50)
    parts = cut_parts(rollouts, folds, part_tokens=60)
    assert sorted(r.id for part in parts for r in part.rollouts) == list(range(50))
    assert [part.number for part in parts] == list(range(len(parts)))
    for part in parts:
        lengths = [len(r.response_ids) for r in part.rollouts]
        assert lengths == sorted(lengths)
        assert sum(lengths) <= 60
        assert {fold_of(r, folds) for r in part.rollouts} == {part.fold}
    assert cut_parts(rollouts[::-1], folds, part_tokens=60) == parts


# ---- what is said and refused


def test_a_reference_that_knows_the_responses_by_heart_is_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # mean P (.99 + .92) / 2 = .955: mean weight .045; and (.99 + .90) / 2 = .945
    describe_column(torch.tensor([0.99, 0.92], dtype=torch.float64), Path("x"))
    describe_column(torch.tensor([0.99, 0.9], dtype=torch.float64), Path("x"))
    (warning,) = (record for record in caplog.records if record.levelname == "WARNING")
    assert "the mean weight 1 - P is 0.045, below 0.05" in warning.message
    assert "unconditional.folds: 2" in warning.message
    assert [message[:26] for message in caplog.messages] == [
        "uncond_logp: mean P 0.955,",
        warning.message[:26],
        "uncond_logp: mean P 0.945,",
    ]


def test_a_reference_of_other_ids_is_refused(column: Column, student: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    for file in student.iterdir():
        (foreign / file.name).write_bytes(file.read_bytes())
    text = (foreign / "tokenizer.json").read_text()
    assert '"<think>"' in text
    (foreign / "tokenizer.json").write_text(text.replace('"<think>"', '"<thinks>"'))
    with pytest.raises(
        UserError, match="the unconditional reference and the model must share one vocabulary"
    ):
        column(SmallReference(model=ModelSettings(path=str(foreign))))
    assert not (tmp_path / "stages").exists()


def test_a_smaller_reference_scores_too_and_a_short_one_is_refused(
    column: Column, tmp_path: Path
) -> None:
    shape = testbed.TinyShape(
        hidden_size=16,
        intermediate_size=16,
        num_layers=1,
        num_heads=1,
        num_key_value_heads=1,
        context=4096,
    )
    for name, context in (("small", 4096), ("short", 20)):
        testbed.build(tmp_path / name, dataclasses.replace(shape, context=context))
    found = column(SmallReference(model=ModelSettings(path=str(tmp_path / "small"))))
    assert all(len(r.evidence[COLUMN]) == len(r.response_ids) for r in found)
    with pytest.raises(
        UserError, match="the unconditional reference takes 20 tokens, and the response of"
    ):
        column(SmallReference(model=ModelSettings(path=str(tmp_path / "short"))))


def test_folds_that_leave_nothing_to_tune_on_are_refused(column: Column) -> None:
    with pytest.raises(UserError, match=r"unconditional.folds: 2 folds of 1 responses leave none"):
        column(dataclasses.replace(TUNED, folds=2), change=lambda written: written[:1])
