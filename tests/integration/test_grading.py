"""The verifier inside Ray actors, among hostile answers: verdicts are right, and its processes go
with their actors.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from tests.integration.processes import until
from tests.integration.rays import RayCluster
from tests.tasks.grading.hostile import SLOW, processes_with

pytestmark = pytest.mark.integration

SCRIPT = """
import json, sys
from pathlib import Path

import ray

from reasontrain.cluster.actors import GraderWorker
from reasontrain.tasks import GradeRequest
from tests.tasks.grading.hostile import SLOW, mixed

mark, folder = sys.argv[1:]
ray.init(log_to_driver=False, runtime_env={"env_vars": {"GRADED_HERE": mark}})
actor = ray.remote(num_cpus=1, concurrency_groups={"watch": 1})(GraderWorker)
actors = [actor.remote(Path(folder) / f"{rank}.log") for rank in range(2)]
parts = [mixed()[rank::2] for rank in range(2)]
refs = [
    actor.grade_many.remote([GradeRequest(gold, text) for gold, text, _ in part], "any")
    for actor, part in zip(actors, parts, strict=True)
]
for part, verdicts in zip(parts, ray.get(refs), strict=True):
    graded = list(zip(part, verdicts, strict=True))
    wrong = [text[:80] for (_, text, right), verdict in graded if verdict.correct != right]
    slow = {text: verdict.reason for (_, text, _), verdict in graded if text in SLOW}
    reasons = sorted({verdict.reason for verdict in verdicts})
    print(json.dumps({"wrong": wrong, "slow": slow, "reasons": reasons}))
for actor in actors:
    ray.kill(actor)
"""


def test_hostile_answers_in_ray_actors(one_ray: RayCluster, tmp_path: Path) -> None:
    mark = uuid4().hex
    run = one_ray.run(sys.executable, "-c", SCRIPT, mark, str(tmp_path))
    assert run.returncode == 0, run.stdout
    actors = [json.loads(line) for line in run.stdout.splitlines() if line.startswith('{"wrong"')]
    assert [actor["wrong"] for actor in actors] == [[], []], run.stdout
    slow = [actor["slow"] for actor in actors]
    assert all(slow), "each actor is asked for what takes too long"
    assert slow[0] | slow[1] == dict.fromkeys(SLOW, "timeout")
    assert not {"memory", "crash"} & {reason for actor in actors for reason in actor["reasons"]}
    until(lambda: processes_with(mark) == [], limit_s=60, what="the end of the actors' graders")
