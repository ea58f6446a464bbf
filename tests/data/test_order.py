"""Any step's prompts can be found without the steps before it; an epoch asks every prompt once."""

from __future__ import annotations

from reasontrain.data.order import Order
from reasontrain.data.prompts import Encoder, PromptSettings
from reasontrain.tasks.arithmetic import Arithmetic
from reasontrain.types import Problem, Prompt
from tests.tiny import tokenizer

PROMPTS = [Prompt(problem=Problem(id=str(i), prompt=""), ids=(1,)) for i in range(10)]


def asked(order: Order, *steps: int) -> list[str]:
    return [prompt.problem.id for step in steps for prompt in order.at(step)]


def test_an_epoch_asks_every_prompt_once_and_the_next_in_another_order() -> None:
    order = Order(PROMPTS, per_step=4, seed=0, tokenizer=tokenizer())
    ids = asked(order, 0, 1, 2, 3, 4)  # 20 prompts, two epochs, the third step across the border
    assert sorted(ids[:10]) == sorted(ids[10:]) == [str(i) for i in range(10)]
    assert ids[:10] != ids[10:]
    assert asked(order, 2) == ids[8:12]


def test_seeds_differ_and_a_small_file_is_asked_again_within_a_step() -> None:
    first, second = (
        Order(PROMPTS, per_step=10, seed=seed, tokenizer=tokenizer()) for seed in (0, 1)
    )
    assert asked(first, 0) != asked(second, 0)
    assert len(asked(Order(PROMPTS[:3], per_step=7, seed=0, tokenizer=tokenizer()), 0)) == 7


def test_an_order_reads_the_prompts_of_a_step_alone_and_the_same_as_from_a_list() -> None:
    problems = Arithmetic(num_problems=500).problems()
    encoder = Encoder(tokenizer(), PromptSettings(), 512)
    lazy, eager = (
        Order(prompts, per_step=8, seed=3, tokenizer=tokenizer())
        for prompts in (encoder.lazy_prompts(problems), encoder.prompts(problems)[0])
    )
    assert [lazy.at(step) for step in (0, 61, 62, 500)] == [
        eager.at(step) for step in (0, 61, 62, 500)
    ]
