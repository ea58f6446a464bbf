"""Parts keep their composition, however much of them is missing."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis.strategies import integers

from reasontrain.data.sampling import Sampling
from reasontrain.evaluation.generation import answer_by_sampling, chunk_prompts, sample_with
from reasontrain.types import Problem, Prompt, Rollout, Weights

PROMPTS = [Prompt(problem=Problem(id=f"p{i}", prompt=""), ids=(i,)) for i in range(5)]


class Noting:
    """A sampler that says its rollouts' ids, and notes with whom it was asked each."""

    version = 0

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def load(self, weights: Weights) -> None: ...

    def sample(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, num: int, first_id: int
    ) -> list[Rollout]:
        self.asked.append([prompt.problem.id for prompt in prompts])
        return [
            Rollout(
                problem=prompt.problem, id=first_id + i * num + g, group=0, prompt_ids=prompt.ids,
                response_ids=(1, 2), text=f"{first_id + i * num + g}", truncated=g == 1,
            )
            for i, prompt in enumerate(prompts) for g in range(num)
        ]  # fmt: skip


def test_only_parts_in_which_something_is_missing_are_sampled_and_those_as_they_are() -> None:
    sampler = Noting()
    respond = answer_by_sampling(
        chunk_prompts(PROMPTS, Sampling(), num=2, chunk_size=2), sample_with(sampler)
    )
    found = [dict(replies) for replies in respond({(1, 1), (4, 0)})]
    assert sampler.asked == [["p0", "p1"], ["p4"]]
    assert [list(replies) for replies in found] == [
        [(0, 0), (0, 1), (1, 0), (1, 1)],
        [(4, 0), (4, 1)],
    ]
    one = found[1][4, 1]
    assert (one.text, one.truncated, one.num_tokens) == (
        "9",
        True,
        2,
    )  # sample 1 of problem 4 of 2 each


@given(num=integers(1, 3), chunk_size=integers(1, 7))
def test_a_keys_rollout_has_the_id_of_the_whole_suite(num: int, chunk_size: int) -> None:
    respond = answer_by_sampling(
        chunk_prompts(PROMPTS, Sampling(), num=num, chunk_size=chunk_size), sample_with(Noting())
    )
    keys = {(m, s) for m in range(5) for s in range(num)}
    said = {place: reply.text for replies in respond(keys) for place, reply in replies.items()}
    assert said == {(m, s): str(m * num + s) for m, s in keys}
