"""The learner of many ranks against the one process it must equal: one group of processes per
number of ranks, for all cases.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor, multiprocessing
from torch.testing import assert_close
from transformers import AutoModelForCausalLM

from reasontrain.learner.distributed import free_port
from reasontrain.learner.weight_export import tensors
from reasontrain.types import UserError
from tests.learner import zero_cases
from tests.learner.zero_cases import (
    FEWER,
    LARGE,
    LOADED,
    MADE_OF,
    MODELS,
    PAIRED,
    PLACES,
    REDIVIDED,
    SAVED,
    SELECTING,
    SPECIAL,
    STAGES,
    student,
)

WORLDS = (1, 2)
ALLOWANCE = 12 << 20
"""Bytes by which a rank may grow beyond its part of a model: matrices that are read, and torch."""
LIMIT_S = 1500
"""Far above what all cases take; ranks that wait for each other end with it."""


class Ranks:
    """What the ranks found; whichever test process comes first runs them, and the others read its
    files.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __call__(self, world: int, name: str) -> list[object]:
        """What every rank answered in this case."""
        out = self.directory / str(world)
        with (self.directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for earlier in (
                *range(1, min(world, max(WORLDS) + 1)),
                world,
            ):  # two read what one saved
                if not (self.directory / str(earlier)).exists():
                    run(earlier, self.directory / str(earlier))
        return read(out, name, world)

    def fewer(self, name: str) -> list[object]:
        """What one rank answered that read what two had saved."""
        self(2, "sharded")
        out = self.directory / FEWER
        with (self.directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not out.exists():
                run(1, out)
        return read(out, f"redivided-{name}", 1)


def read(out: Path, name: str, world: int) -> list[object]:
    """What the ranks wrote of a case."""
    paths = [out / f"{name}.{rank}.pt" for rank in range(world)]
    if not all(path.exists() for path in paths):
        said = "\n".join(
            path.read_text(encoding="utf-8") for path in sorted(out.glob("failed-*.txt"))
        )
        pytest.fail(f"{name} was not run to its end: {said or 'no rank says why'}", pytrace=False)
    return [torch.load(path, weights_only=True) for path in paths]


def run(world: int, out: Path) -> None:
    """All cases on so many ranks."""
    out.mkdir()
    address = f"127.0.0.1:{free_port('127.0.0.1')}"
    started = multiprocessing.spawn(
        zero_cases.work, (world, address, out), nprocs=world, join=False
    )
    try:
        started.join(timeout=LIMIT_S, grace_period=5)
    except (multiprocessing.ProcessRaisedException, multiprocessing.ProcessExitedException):
        pass  # what happened is in the files
    finally:
        for process in started.processes:
            process.kill()


@pytest.fixture(scope="session")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    base = tmp_path_factory.getbasetemp()
    directory = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "zero"
    directory.mkdir(exist_ok=True)
    return Ranks(directory)


@cache
def alone(case: str, *given: object) -> object:
    """What one process finds."""
    if case == "special":
        world, name = given
        learn = {
            key: value for key, value in SPECIAL[name]["learn"].items() if key != "vocabulary"
        }  # all give what blocks give
        return zero_cases.parity(None, world, "untied", **learn)
    return getattr(zero_cases, case)(None, *given)


def assert_equal_steps(found: dict[str, object], expected: dict[str, object], where: str) -> None:
    """Evidence, loss, norm, gradients before clipping and weights after the step."""
    for key in ("loss", "grad_norm", "kept_share", "lr", "skipped"):
        assert found["stats"][key] == pytest.approx(expected["stats"][key], rel=2e-5, abs=1e-6), (
            f"{where}: {key}"
        )
    for kind, rtol, atol in (
        ("evidence", 1e-5, 2e-5),
        ("gradients", 1e-4, 2e-6),
        ("weights", 1e-5, 2e-6),
    ):
        ours, theirs = found.get(kind, {}), expected.get(kind, {})
        assert ours.keys() == theirs.keys(), f"{where}: {kind}"
        for name, tensor in theirs.items():
            assert_close(
                ours[name],
                tensor,
                rtol=rtol,
                atol=atol,
                msg=lambda m, k=kind, n=name: f"{where}: {k} {n}: {m}",
            )


def assert_bit_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


# ---- what one process finds, any number of ranks find


@pytest.mark.parametrize(("world", "stage", "model"), MADE_OF)
def test_steps_are_those_of_one_process(ranks: Ranks, world: int, stage: int, model: str) -> None:
    expected = alone("parity", world, model)
    for rank, found in enumerate(ranks(world, f"parity-{stage}-{model}")):
        for index, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
            assert ours["micro"] == index + 1  # 1, 2 and 3 micro-batches
            assert_equal_steps(ours, theirs, f"rank {rank}, step {index}")
            assert all(seconds > 0 for seconds in ours["times"].values()), ours["times"]
            assert {part for part, seconds in theirs["times"].items() if not seconds} == {
                "wait"
            }  # there is nobody


@pytest.mark.parametrize("stage", STAGES)
def test_the_parts_of_a_step_are_the_mean_over_the_ranks(ranks: Ranks, stage: int) -> None:
    for first, second in zip(*ranks(2, f"parity-{stage}-untied"), strict=True):
        assert first["times"] == second["times"]
        assert first["peak_gb"] == second["peak_gb"] > 0.1
        assert 2 * sum(first["times"].values()) < first["wall_s"] + second["wall_s"]


@pytest.mark.parametrize(("world", "stage"), PLACES)
@pytest.mark.parametrize("model", ["untied", "lora"])
def test_a_moving_average_and_switched_off_adapters_are_those_of_one_process(
    ranks: Ranks, world: int, stage: int, model: str
) -> None:
    expected = alone("histories", world, model)
    for rank, found in enumerate(ranks(world, f"histories-{stage}-{model}")):
        for index, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
            assert_equal_steps(ours, theirs, f"rank {rank}, step {index}")


@pytest.mark.parametrize(("world", "stage"), PLACES)
@pytest.mark.parametrize(("model", "objective"), PAIRED)
def test_so_are_steps_on_pairs(
    ranks: Ranks, world: int, stage: int, model: str, objective: str
) -> None:
    expected = alone("paired", world, model, objective)
    for rank, found in enumerate(ranks(world, f"paired-{stage}-{model}-{objective}")):
        for index, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
            assert_equal_steps(ours, theirs, f"rank {rank}, step {index}")
            assert ours["stats"]["margin"] == pytest.approx(theirs["stats"]["margin"], abs=1e-5)


@pytest.mark.parametrize("name", SPECIAL)
def test_so_are_they_with_every_way_to_save_memory_or_time(ranks: Ranks, name: str) -> None:
    expected = alone("special", 2, name)
    for rank, found in enumerate(ranks(2, f"special-{name}")):
        for index, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
            assert_equal_steps(ours, theirs, f"rank {rank}, step {index}")


@pytest.mark.parametrize(("world", "stage", "model"), MADE_OF)
def test_so_are_steps_with_soft_thoughts(ranks: Ranks, world: int, stage: int, model: str) -> None:
    """Gradients of embeddings as input, as basis of mixtures and as head."""
    expected = alone("soft", world, model)
    for rank, found in enumerate(ranks(world, f"soft-{stage}-{model}")):
        for index, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
            assert_equal_steps(ours, theirs, f"rank {rank}, step {index}")
            assert ours["stats"]["soft_health"] == pytest.approx(
                theirs["stats"]["soft_health"], rel=1e-5
            )
            assert ours["stats"]["soft_scored"] == theirs["stats"]["soft_scored"]


@pytest.mark.parametrize(("world", "stage"), SELECTING)
def test_a_rank_without_work_and_a_step_without_any_change_nothing(
    ranks: Ranks, world: int, stage: int
) -> None:
    """TIP sheet, test 2: spans and rankings are of the whole step, whichever ranks its rollouts lie
    on.
    """
    expected = alone("edges", world)
    for rank, found in enumerate(ranks(world, f"edges-{stage}")):
        for name, theirs in expected.items():
            assert_equal_steps(found[name], theirs, f"rank {rank}, {name}")
        assert_bit_equal(found["nothing selected"]["weights"], found["one rollout"]["weights"])


@pytest.mark.parametrize(("world", "stage"), PLACES)
def test_a_gradient_that_is_not_finite_is_skipped_by_all_and_forgotten(
    ranks: Ranks, world: int, stage: int
) -> None:
    expected = alone("edges", world)  # never saw it
    for rank, found in enumerate(ranks(world, f"edges-{stage}")):
        stats = found["not finite"]["stats"]
        assert (stats["skipped"], stats["nonfinite_in_a_row"]) == (1.0, 1.0)
        assert_bit_equal(found["not finite"]["weights"], found["nothing selected"]["weights"])
        assert found["after"]["stats"]["nonfinite_in_a_row"] == 0.0
        assert_equal_steps(found["after"], expected["after"], f"rank {rank}")


@pytest.mark.parametrize(("world", "stage"), SELECTING)
def test_what_is_dropped_and_what_is_learned_from_the_rest_does_not_know_the_ranks(
    ranks: Ranks, world: int, stage: int
) -> None:
    """D3S sheet, test 9, with GRPO, with GSPO, whose ratios are of whole responses, and with CISPO,
    whose bonus is at all tokens.
    """
    expected = alone("dropping", world)
    for rank, found in enumerate(ranks(world, f"dropping-{stage}")):
        for name, theirs in expected.items():
            assert_equal_steps(found[name], theirs, f"rank {rank}, {name}")
        for name in ("grpo", "gspo", "cispo"):
            assert torch.equal(found[name]["rollouts"], expected[name]["rollouts"])
            assert torch.equal(found[name]["tokens"], expected[name]["tokens"])
        assert_bit_equal(found["nothing"]["weights"], found["cispo"]["weights"])


@pytest.mark.parametrize(("world", "stage"), SELECTING)
def test_several_updates_of_a_batch_are_those_of_one_process(
    ranks: Ranks, world: int, stage: int
) -> None:
    expected = alone("updates", world)
    for rank, found in enumerate(ranks(world, f"updates-{stage}")):
        for index, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
            assert_equal_steps(ours, theirs, f"rank {rank}, step {index}")
            assert ours["stats"].keys() == theirs["stats"].keys()
            for name, value in theirs["stats"].items():
                assert ours["stats"][name] == pytest.approx(value, rel=1e-4, abs=2e-6), name
    assert expected[0]["stats"]["clipped_update_1"] == 0
    assert expected[0]["stats"]["clipped_update_4"] > 0


@pytest.mark.parametrize("world", WORLDS)
def test_a_sharded_teacher_and_reference_say_what_whole_ones_say(ranks: Ranks, world: int) -> None:
    for rank, (found,) in enumerate(ranks(world, "sharded")):
        assert_equal_steps(found, alone("sharded", world)[0], f"rank {rank}")
        assert found["whole"] == 0  # between forwards, no rank holds a parameter


@pytest.mark.parametrize("world", WORLDS)
def test_so_do_several_with_prompts_of_their_own(ranks: Ranks, world: int) -> None:
    for rank, (found,) in enumerate(ranks(world, "several_teachers")):
        assert_equal_steps(found, alone("several_teachers", world)[0], f"rank {rank}")


@pytest.mark.parametrize(
    ("world", "name", "model"),
    [
        (1, "0-untied", "untied"),
        (2, "0-untied", "untied"),
        (2, "0-tied", "tied"),
        (2, "100000-untied", "untied"),
        (2, "0-lora", "lora"),
    ],
)
def test_sampling_between_steps_is_that_of_a_plain_model_and_leaves_no_trace(
    ranks: Ranks, world: int, name: str, model: str
) -> None:
    expected = alone("sampling", world, model)
    for rank, found in enumerate(ranks(world, f"sampling-{name}")):
        for index, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
            assert ours.get("rollouts") == theirs.get("rollouts")
            assert_equal_steps(ours, theirs, f"rank {rank}, step {index}")


@pytest.mark.parametrize("stage", STAGES)
def test_a_bfloat16_learner_keeps_float32_masters(ranks: Ranks, stage: int) -> None:
    """Of four steps of about 1e-4, none would move a bfloat16 weight of 0.1, whose neighbours are
    5e-4 away.
    """
    expected = alone("bfloat16", 2)
    for found in ranks(2, f"bfloat16-{stage}"):
        moved, wanted = (flat(end["masters"]) - flat(end["start"]) for end in (found, expected))
        assert 1e-5 < wanted.abs().mean() < 2e-4
        assert (
            moved - wanted
        ).norm() < 0.02 * wanted.norm()  # clipped alike, or they would go further
        gradient, right = (flat(end["first"]["gradients"]) for end in (found, expected))
        assert (gradient - right).norm() < 0.02 * right.norm()
        assert all(tensor.dtype == torch.float32 for tensor in found["first"]["gradients"].values())
        assert found["first"]["stats"]["loss"] == pytest.approx(
            expected["first"]["stats"]["loss"], rel=2e-3
        )
        # Above stage 0 the residual stream is in bfloat16 too, which rounds more.
        assert 0.5 < found["noise"] / expected["noise"] < (1.5 if stage == 0 else 5)


def flat(named: dict[str, Tensor]) -> Tensor:
    return torch.cat([named[name].float().flatten() for name in sorted(named)])


# ---- checkpoints


@pytest.mark.parametrize(("world", "stage", "model"), SAVED)
def test_restored_it_goes_on_bit_for_bit(ranks: Ranks, world: int, stage: int, model: str) -> None:
    for found in ranks(world, f"resumed-{stage}-{model}"):
        assert_bit_equal(found["loaded"], found["saved"])
        assert found["version"] == 4
        for ours, theirs in zip(found["again"], found["straight"], strict=True):
            assert ours["stats"] == theirs["stats"]
            for kind in ("evidence", "gradients", "weights"):
                assert_bit_equal(ours[kind], theirs[kind])


@pytest.mark.parametrize(("world", "stage", "model"), SAVED)
def test_what_is_saved_and_exported_is_what_others_load(
    ranks: Ranks, world: int, stage: int, model: str
) -> None:
    found = ranks(world, f"resumed-{stage}-{model}")[0]
    directory = ranks.directory / str(world) / f"saved-{stage}-{model}"
    exported = dict(
        tensors(AutoModelForCausalLM.from_pretrained(directory / "export", dtype="auto"))
    )
    assert_bit_equal(exported, found["exported"])
    if model == "lora":
        base = student(**MODELS["untied"]).model
        adapted = PeftModel.from_pretrained(base, directory)
        assert_bit_equal(dict(tensors(adapted.base_model.model)), found["saved"])
    else:
        assert_bit_equal(
            dict(tensors(AutoModelForCausalLM.from_pretrained(directory, dtype="auto"))),
            found["saved"],
        )


@pytest.mark.parametrize("name", REDIVIDED)
def test_other_ranks_and_other_stages_go_on_as_if_nothing_had_changed(
    ranks: Ranks, name: str
) -> None:
    """Weights bit for bit, and the steps of the run that was not interrupted."""
    folder, zero, model, source = REDIVIDED[name]
    world, _, saved = source.partition("/")
    expected = ranks(int(world), saved.replace("saved", "resumed"))[0]
    if folder == "here":
        answers = [zero_cases.redivided(zero, model, ranks.directory / source)]
    else:
        answers = ranks(int(folder), f"redivided-{name}") if folder == "2" else ranks.fewer(name)
    for rank, found in enumerate(answers):
        assert_bit_equal(found["loaded"], expected["saved"])
        for index, (ours, theirs) in enumerate(
            zip(found["again"], expected["straight"], strict=True)
        ):
            assert_equal_steps(ours, theirs, f"rank {rank}, step {index}")


@pytest.mark.parametrize("stage", [1, 3])
def test_float32_masters_of_bfloat16_weights_are_kept(ranks: Ranks, stage: int) -> None:
    for found in ranks(2, f"redivided-bfloat16-{stage}"):
        assert_bit_equal(found["loaded"], found["saved"])
        moved = flat(found["straight"]) - flat(found["saved"])
        assert moved.norm() > 0
        assert (flat(found["again"]) - flat(found["straight"])).norm() < 1e-3 * moved.norm()


def test_the_state_of_another_model_is_refused(ranks: Ranks) -> None:
    ranks(2, "resumed-2-tied")
    with pytest.raises(
        UserError, match=r"is of another model .* lm_head.weight .no elements, here "
    ):
        zero_cases.redivided(None, "untied", ranks.directory / "2/saved-2-tied")
    with pytest.raises(UserError, match=r"has no layout.json, so it is no checkpoint that this"):
        zero_cases.redivided(None, "untied", ranks.directory)


# ---- what a user sees


def test_neither_a_compiler_nor_a_warning_is_needed(tmp_path: Path) -> None:
    """One step in a process that finds no compiler, with an empty home: nothing is built and
    nothing is printed.
    """
    code = (
        "if True:\n"
        "    import torch\n"
        "    from reasontrain.learner.distributed import RankAddress, free_port, join, leave\n"
        "    from reasontrain.recipe import Zero\n"
        "    from tests.learner import zero_cases\n"
        "    from tests.tiny import batch\n"
        "    place = RankAddress(0, 1, f'127.0.0.1:{free_port(\"127.0.0.1\")}')\n"
        "    join(place, torch.device('cpu'))\n"
        "    zero_cases.step(zero_cases.learner(zero_cases.student(), "
        "Zero(persist_below=0)), batch())\n"
        "    leave()\n"
    )
    environment = os.environ | {
        "PATH": str(tmp_path),
        "HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    environment.pop("CXX", None)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# ---- models that ranks read


@pytest.mark.parametrize("model", sorted(LOADED))
def test_models_that_ranks_divide_while_they_read_are_those_of_one_process(
    ranks: Ranks, model: str
) -> None:
    answers = ranks(2, f"loaded-{model}")
    alone = zero_cases.loaded(None, ranks.directory / "2" / f"loaded-{model}", model)
    exact = model in ("plain", "tied")
    for answer in answers:
        assert answer["divided"]
        narrow = {"torch.bfloat16"}
        assert set(answer["dtypes"]) == narrow | (set() if not exact else {"torch.float32"})
        assert answer["parts"] <= answer["sizes"] / 2 + 2 * len(answer["dtypes"])
        assert answer["start"].keys() == alone["start"].keys()
        for name, tensor in alone["start"].items():
            # at stage 3 a model that computes in bfloat16 shows the weights it computes with
            expected = tensor if exact else tensor.bfloat16().float()
            assert torch.equal(answer["start"][name], expected), name
            assert torch.equal(answer["restored"][name], answer["weights"][name]), name
        tolerance = 1e-5 if exact else 0.03
        assert answer["loss"] == pytest.approx(alone["loss"], rel=tolerance)
        assert answer["norm"] == pytest.approx(alone["norm"], rel=max(tolerance, 1e-4))
        if exact:
            for name, tensor in alone["weights"].items():
                assert_close(answer["weights"][name], tensor, rtol=0, atol=1e-5, msg=name)


def check_growth(answers: list[object], at_least: int) -> None:
    for answer in answers:
        assert answer["bytes"] >= at_least
        share = answer["bytes"] / 2
        assert share <= answer["peak"] <= 1.4 * share + ALLOWANCE, answer


def test_a_rank_reads_its_part_of_a_model_without_the_rest(ranks: Ranks) -> None:
    check_growth(ranks(2, "memory-of-loading"), 90 * 10**6)


@pytest.mark.slow
def test_a_rank_reads_its_part_of_a_large_model_without_the_rest(tmp_path: Path) -> None:
    run(2, tmp_path / LARGE)
    check_growth(read(tmp_path / LARGE, "memory-of-loading", 2), 500 * 10**6)
