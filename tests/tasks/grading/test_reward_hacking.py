"""No answer earns the reward of two golds of different value."""

from __future__ import annotations

import pytest

from reasontrain.tasks.grading import Grader
from tests.tasks.grading.corpus import needs_benchmarks
from tests.tasks.grading.reward_search import NUMBER_OF_GOLDS, Search, gold_set, grouped

pytestmark = needs_benchmarks


@pytest.mark.parametrize(
    ("per_step", "number"),
    [(1, 120), pytest.param(30, 8_000, marks=pytest.mark.slow)],
    ids=["part", "full"],
)
def test_no_answer_is_right_for_two_golds(
    per_step: int, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    texts, removed = gold_set()
    assert len(texts) == NUMBER_OF_GOLDS
    with Grader(num_workers=1, limit_s=1.0) as grader:
        search = Search(grader, texts)
        hacks = search.run(per_step, number, rounds=2)
    with capsys.disabled():
        print(
            f"\n{removed} golds left out, which equal another or differ in unit, brackets or order"
            f" alone; {search.num_tried} answers tried, {search.num_right} right for a gold"
        )
    lines = list(grouped(hacks))
    assert not lines, f"{len(hacks)} answers are right for two golds:\n" + "\n".join(lines[:40])
    # a search that never earns anything finds nothing
    assert search.num_right > search.num_tried / 10
