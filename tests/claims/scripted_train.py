"""What `reasontrain train` leaves of a run, made up at once, for tests that are about runs and not
about training.

`levels` in the working directory gives the tenths of problems that are right, by rule, or by rule
and rate. A file `fail` makes it fail, and with a file `slow` it waits for a signal to stop.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import yaml

recipe = yaml.safe_load(Path(sys.argv[1]).read_text())
run, steps, suites = (
    Path(recipe["out"]) / recipe["name"],
    recipe["steps"],
    recipe["evaluate"]["suites"],
)
token_selection = recipe["token_selection"]["kind"]
with Path("calls").open("a") as calls:
    calls.write(
        f"{token_selection} {recipe['learn']['lr']:g} {recipe['seed']} "
        f"{' '.join(suite['name'] for suite in suites)}\n"
    )


def stop(number: int, frame: object) -> None:
    Path("saved").touch()
    sys.exit(1)


if Path("slow").exists():
    signal.signal(signal.SIGTERM, stop)
    Path("waiting").touch()
    time.sleep(600)
if Path("fail").exists():
    sys.exit("reasontrain: the disk is full")
levels = json.loads(Path("levels").read_text())
level = levels.get(f"{token_selection} {recipe['learn']['lr']:g}", levels.get(token_selection, 0))
(run / "final").mkdir(parents=True, exist_ok=True)
(run / "answers").mkdir(exist_ok=True)
(run / "environment.json").write_text(
    json.dumps({"device": "cpu", "versions": {"torch": "1"}, "seed": recipe["seed"]})
)
line = {"trained_tokens": 20.0 if token_selection == "all" else 10.0, "response_tokens_mean": 5.0}
(run / "metrics.jsonl").write_text((json.dumps(line) + "\n") * steps)
for suite in suites:
    right = [index % 10 < level for index in range(suite["task"]["num_problems"])]
    answers = [
        {"problem": f"{suite['name']}/{index}", "correct": verdict}
        for index, verdict in enumerate(right)
    ]
    (run / "answers" / f"{suite['name']}-step-{steps}.jsonl").write_text(
        "".join(json.dumps(a) + "\n" for a in answers)
    )
    record = {
        "step": steps,
        "suite": suite["name"],
        "metrics": {"accuracy": {"value": sum(right) / len(right)}},
    }
    with (run / "evaluations.jsonl").open("a") as stream:
        stream.write(json.dumps(record) + "\n")
