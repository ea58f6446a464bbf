"""Recipes under Ray, started by the run itself: the numbers of one process, refusals within
seconds, deaths that cost nothing.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from reasontrain.models import testbed
from reasontrain.run import checkpoint
from reasontrain.run.directory import RunDirectory
from tests import soak
from tests.integration.conftest import RECIPE, Reference, assert_same_run, losses, run_in
from tests.integration.processes import ROOT, Process, environment, until
from tests.integration.rays import RayCluster

pytestmark = pytest.mark.integration

GRPO = "recipes/tiny/grpo.yaml"
SSTOKEN = "recipes/tiny/sstoken.yaml"
PRIOR = "recipes/tiny/prior.yaml"
IMAGES = "recipes/tiny/prior_images.yaml"
UNEVEN = (
    "learn.rollouts_per_step=3",
    "learn.micro_batch_tokens=60",
    "learn.warmup_steps=1",
    "task.num_problems=96",
)
"""Of two ranks one has a second micro-batch, and the other must use the eyes of its model beside it
for nothing.
"""
D3S = "recipes/tiny/d3s.yaml"
CDPO = "recipes/tiny/cdpo.yaml"
SOFT, FUZZY = "recipes/tiny/soft_tokens.yaml", "recipes/tiny/soft_tokens_fuzzy.yaml"
ORDER_ONE = ("reward.right=1", "reward.boxed=0.1")
"""Rewards of 100 make a hundredfold loss, with a hundredfold rounding."""
ONE_STEP = (*ORDER_ONE, "steps=1", "learn.warmup_steps=0")
"""A soft thought feeds each rounding on to the next token: once weights differ by 1e-7, an answer
may be another one.
"""
SHORT = ("steps=4", "evaluate=null", "learn.rollouts_per_step=32", "task.num_problems=300")
ONE_ZERO = ("cluster.learners=1", "learn.zero.stage=1")
TWO_ZERO_3 = ("cluster.learners=2", "learn.zero.stage=3", "learn.zero.persist_below=0")


@dataclass(frozen=True)
class Ended:
    code: int
    output: str
    seconds: float


def train(*overrides: str, recipe: str = RECIPE, env: Mapping[str, str] | None = None) -> Ended:
    start = time.monotonic()
    given = environment() if env is None else env
    done = subprocess.run(
        ["reasontrain", "train", recipe, *overrides],
        cwd=ROOT,
        env=given,
        capture_output=True,
        text=True,
    )
    return Ended(done.returncode, done.stdout + done.stderr, time.monotonic() - start)


@pytest.mark.parametrize(
    ("recipe", "scale", "more"),
    [
        (RECIPE, ONE_ZERO, ()),
        (RECIPE, TWO_ZERO_3, ()),
        (GRPO, TWO_ZERO_3, ()),
        (D3S, TWO_ZERO_3, ()),
        (SSTOKEN, TWO_ZERO_3, ()),
        (PRIOR, TWO_ZERO_3, ()),
        (IMAGES, TWO_ZERO_3, UNEVEN),
        (
            FUZZY,
            TWO_ZERO_3,
            (*ORDER_ONE, "loss_aggregation=seq_mean_token_mean"),
        ),  # its own loss is a sum over about sixty tokens
        (SOFT, TWO_ZERO_3, ONE_STEP),
    ],
    ids=[
        "tip, one rank",
        "tip",
        "grpo",
        "d3s",
        "sstoken",
        "prior",
        "images",
        "fuzzy tokens",
        "soft tokens",
    ],
)
def test_ranks_give_the_losses_of_one_process(
    one_ray: RayCluster,
    reference: Reference,
    tmp_path: Path,
    recipe: str,
    scale: Sequence[str],
    more: Sequence[str],
) -> None:
    """One rank of every kind of step is the learner's own test; here recipes run from file to
    report.
    """
    expected = reference(*SHORT, *more, recipe=recipe)
    ended = train(*SHORT, *more, *scale, f"out={tmp_path}", recipe=recipe, env=one_ray.env)
    assert ended.code == 0, ended.output
    run = run_in(tmp_path)
    assert losses(run) == pytest.approx(losses(expected), abs=1e-5, rel=0)
    assert len(losses(run)) == (1 if more == ONE_STEP else 4)


@pytest.fixture(scope="module")
def small_cdpo(tmp_path_factory: pytest.TempPathFactory) -> str:
    """cDPO's recipe on a tenth of its problems."""
    content = yaml.safe_load((ROOT / CDPO).read_text())
    content["stages"][0]["task"]["num_problems"] = 60
    path = tmp_path_factory.mktemp("recipe") / "cdpo.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_pairs_and_the_stages_before_them_give_the_losses_of_one_process(
    one_ray: RayCluster, reference: Reference, small_cdpo: str, tmp_path: Path
) -> None:
    """Both tuned models are made by the ranks too; the pairs are the same, and scores differ by
    rounding.
    """
    short = ("steps=4", "evaluate=null")
    expected = reference(*short, recipe=small_cdpo)
    ended = train(*short, *TWO_ZERO_3, f"out={tmp_path}", recipe=small_cdpo, env=one_ray.env)
    assert ended.code == 0, ended.output
    assert losses(tmp_path / "cdpo-tiny") == pytest.approx(losses(expected), abs=1e-5, rel=0)
    assert len(losses(tmp_path / "cdpo-tiny")) == 4


@pytest.mark.parametrize(
    "scale",
    [
        ("cluster.learners=1",),
        (
            "cluster.learners=1",
            "cluster.samplers=1",
            "cluster.graders=2",
            "cluster.teachers=1",
            "cluster.cpus=0.4",
        ),
    ],
    ids=["together", "apart"],
)
def test_processes_without_ranks_repeat_one_process_bit_for_bit(
    one_ray: RayCluster, reference: Reference, tmp_path: Path, scale: Sequence[str]
) -> None:
    """A sampler apart from a learner that holds the teacher is the case of a submitted job."""
    ended = train(*SHORT, *scale, f"out={tmp_path}", env=one_ray.env)
    assert ended.code == 0, ended.output
    (run,) = tmp_path.iterdir()
    assert_same_run(run, reference(*SHORT))


def test_sampling_ahead_is_one_step_behind_and_says_so_in_its_ratios(
    one_ray: RayCluster, tmp_path: Path
) -> None:
    overrides = ("learn.lr=3.0e-3", "cluster.learners=1", "cluster.samplers=1")
    ratios = {}
    for overlap in (0, 1):
        ended = train(
            *SHORT,
            *overrides,
            f"cluster.overlap={overlap}",
            f"out={tmp_path / str(overlap)}",
            recipe=GRPO,
            env=one_ray.env,
        )
        assert ended.code == 0, ended.output
        (run,) = (tmp_path / str(overlap)).iterdir()
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        ratios[overlap] = [abs(record["ratio"] - 1) for record in records]
    assert max(ratios[0]) < 1e-5
    assert ratios[1][0] < 1e-5  # the first batch has no older weights
    assert min(ratios[1][1:]) > 1e-4


@pytest.mark.alone
def test_more_gpus_than_there_are_is_an_error_within_seconds(tmp_path: Path) -> None:
    ended = train(
        "model.device=cuda", "cluster.learners=9", "learn.zero.stage=3", f"out={tmp_path}"
    )
    assert ended.code == 2, ended.output
    assert "9 learner processes need a bundle of {'CPU': 1.0, 'GPU': 1.0} each" in ended.output
    assert "0 GPUs) has room for 0 of them" in ended.output
    assert "Traceback" not in ended.output
    assert ended.seconds < 30
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_token_is_a_sentence(one_ray: RayCluster, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("0" * 64)
    ended = train(
        "cluster.learners=1",
        f"out={tmp_path / 'out'}",
        env=one_ray.env | {"RAY_AUTH_TOKEN_PATH": str(token)},
    )
    assert ended.code == 2, ended.output
    assert "cannot be joined" in ended.output
    assert "token" in ended.output
    assert "Traceback" not in ended.output


@pytest.mark.alone
def test_orchestration_is_a_twentieth_of_a_step_at_most(tmp_path: Path) -> None:
    """The driver's time for all but grading, less what the only actor worked and what one process
    takes to make batches.
    """
    overrides = ("steps=12", "evaluate=null", "learn.rollouts_per_step=64", "task.num_problems=800")
    # Not the shared reference: its process checks annotations at run time, which takes longer.
    runs = {}
    for name, cluster in (("alone", ()), ("ray", ("cluster.learners=1",))):
        ended = train(*overrides, *cluster, f"out={tmp_path / name}")
        assert ended.code == 0, ended.output
        (runs[name],) = (tmp_path / name).iterdir()
    run = runs["ray"]
    spent_s = seconds(run, "step") - seconds(run, "score")
    worked_s = float(json.loads((run / "logs" / "learner-0.json").read_text())["work_s"])
    assert spent_s > 1
    batches_s = seconds(runs["alone"], "orchestration")
    assert 0 < spent_s - worked_s - batches_s < 0.05 * spent_s


def seconds(run: Path, part: str) -> float:
    """What all steps of a run spent on a part."""
    return sum(
        json.loads(line)[f"time_{part}_s"]
        for line in (run / "metrics.jsonl").read_text().splitlines()
    )


STORE = """
import ray, time
ray.init(logging_level="error", log_to_driver=False)
from ray._private.internal_api import memory_summary
while True:
    summary = memory_summary(stats_only=True)
    print(summary.partition("Plasma memory usage ")[2].partition(",")[0], flush=True)
    time.sleep(0.2)
"""


def widened(directory: Path) -> Path:
    """The testbed's student with sixteen times the neurons, the new ones zeros: the same answers
    from 14 MiB of weights.
    """
    student = testbed.MODELS / "student"
    config = AutoConfig.from_pretrained(student)
    config.intermediate_size = 4096
    wide = AutoModelForCausalLM.from_config(config)
    theirs = AutoModelForCausalLM.from_pretrained(student).state_dict()
    with torch.no_grad():
        for name, weight in wide.state_dict().items():
            weight.zero_()[tuple(map(slice, theirs[name].shape))] = theirs[name]
    wide.save_pretrained(directory)
    AutoTokenizer.from_pretrained(student).save_pretrained(directory)
    return directory


def test_the_object_store_never_holds_weights(one_ray: RayCluster, tmp_path: Path) -> None:
    """Rollouts of a step are about 0.7 MiB while they wait for Ray to let go of them; weights go
    from process to process.
    """
    model = widened(tmp_path / "wide")
    watch = Process([sys.executable, "-c", STORE], tmp_path / "store", one_ray.env)
    apart = ("cluster.learners=1", "cluster.samplers=1", "cluster.graders=1", "cluster.cpus=0.5")
    ended = train(*SHORT, *apart, f"model.path={model}", f"out={tmp_path / 'out'}", env=one_ray.env)
    watch.end()
    assert ended.code == 0, ended.output
    seen = [
        int(line.removesuffix(" MiB"))
        for line in (tmp_path / "store").read_text().split("\n")
        if line.endswith(" MiB")
    ]
    assert len(seen) > 10
    assert (model / "model.safetensors").stat().st_size > 13 << 20
    assert max(seen) < 7


@pytest.mark.parametrize(
    "kinds", [soak.REPLACED, soak.BEGUN_AGAIN], ids=["replaced", "begun again"]
)
def test_killed_processes_cost_nothing(
    kinds: tuple[str, ...], undisturbed: Path, tmp_path: Path
) -> None:
    """`make soak` kills each kind many times, each in a run of its own."""
    soak.disturbed(kinds, tmp_path, "run", random.Random(" ".join(kinds)))
    assert soak.fingerprint(tmp_path / "run") == soak.fingerprint(undisturbed)
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == soak.STEPS


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("soak")
    assert soak.begin(out, "undisturbed").wait(soak.LIMIT_S) == 0, (
        out / "undisturbed.log"
    ).read_text()
    return out / "undisturbed"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 MB, where this user may mount one."""
    command = ["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(tmp_path)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small disk needs the right to mount one: {mounted.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_disk_that_fills_up_under_ranks_is_a_sentence_and_keeps_what_was_saved(
    small_disk: Path, undisturbed: Path
) -> None:
    process, run = soak.begin(small_disk, "run"), small_disk / "run"
    until(
        lambda: (run / "checkpoints" / "step-2").exists(), limit_s=soak.LIMIT_S, what="a checkpoint"
    )
    thesis = small_disk / "thesis"
    room = shutil.disk_usage(small_disk).free - (2 << 20)
    thesis.write_bytes(bytes(room))
    assert process.wait(soak.LIMIT_S) == 1
    said = (small_disk / "run.log").read_text()
    assert "the disk is full" in said, said
    assert "Traceback" not in said
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-2"]
    thesis.unlink()
    assert soak.begin(small_disk, "run").wait(soak.LIMIT_S) == 0
    assert soak.fingerprint(run) == soak.fingerprint(undisturbed)


def test_every_damaged_file_of_ranks_is_noticed_and_the_older_checkpoint_used(
    undisturbed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (last, newest), (step, older) = RunDirectory(undisturbed).checkpoint_directories()[:2]
    files = [path for path in newest.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".safetensors", ".json"}
    for path in files:
        whole = path.read_bytes()
        middle = len(whole) // 2
        for damaged in (
            whole[:-1],
            whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        ):
            path.write_bytes(damaged)
            caplog.clear()
            assert checkpoint.newest(RunDirectory(undisturbed)) == (step, older), path
            assert str(newest) in caplog.messages[0]
        path.write_bytes(whole)
    caplog.clear()
    assert checkpoint.newest(RunDirectory(undisturbed)) == (last, newest)
    assert caplog.messages == []
