"""A suite as requests to an endpoint: what is sent for every answer, and many requests under way at
once.

Every problem stands alone here, so there are no parts: each answer is one request with a seed of
its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from queue import Empty, Queue
from threading import Event, Thread

import torch

from reasontrain import rng
from reasontrain.data.prompts import PromptSettings
from reasontrain.data.sampling import Sampling
from reasontrain.evaluation.answers import ProblemSample, Reply
from reasontrain.evaluation.endpoint_client import Endpoint, EndpointClient, Json, connected
from reasontrain.rng import Stream
from reasontrain.types import Problem, UserError


@dataclass(frozen=True, kw_only=True)
class EndpointRequests:
    """Conversations, or plain texts to be continued where the suite's style is `plain`; `num`
    answers to each problem.

    `seed`, `temperature`, `top_p` and `max_tokens` are sent always, the rest where the suite sets
    it: `stop`, and `top_k`, `min_p` and `enable_thinking`, which OpenAI's own API does not know and
    most servers do.
    """

    endpoint: Endpoint
    problems: Sequence[Problem]
    prompt: PromptSettings
    sampling: Sampling
    num: int
    seed: int

    def __post_init__(self) -> None:
        said = {
            "sampling.thought": self.sampling.thought,
            "sampling.stop_ids": self.sampling.stop_ids,
            "prompt.max_tokens": self.prompt.max_tokens,
            "an image": next((problem.image for problem in self.problems if problem.image), None),
        }
        if unsaid := [name for name, value in said.items() if value]:
            raise UserError(
                f"an endpoint cannot be told {' or '.join(unsaid)}; leave it out, or "
                f"evaluate the weights themselves"
            )
        if self.is_plain and (
            self.prompt.system is not None or self.prompt.enable_thinking is not None
        ):
            raise UserError(
                "prompt.system and prompt.enable_thinking need a conversation, and prompts "
                "are plain here"
            )

    @property
    def is_plain(self) -> bool:
        """Whether the text is continued as it is; `auto` is a conversation, since servers hide
        whether they have a template.
        """
        return self.prompt.style == "plain"

    def body(self, place: ProblemSample) -> dict[str, Json]:
        """What is sent to have one answer."""
        m, sample = place
        settings, problem = self.sampling, self.problems[m]
        number = rng.uniform(self.seed, Stream.ENDPOINT_SEEDS, torch.tensor(m * self.num + sample))
        body: dict[str, Json] = {
            "model": self.endpoint.model,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "max_tokens": settings.max_tokens,
            "seed": int(number * 2.0**31),
        }
        if self.is_plain:
            asked = self.prompt.around(problem)
            if not isinstance(asked, str):
                raise UserError(
                    f"problem {problem.id} is a conversation, and prompts are plain here"
                )
            body["prompt"] = asked
        else:
            body["messages"] = self.prompt.turns(problem)
        if settings.stop:
            body["stop"] = list(settings.stop)
        if settings.top_k:
            body["top_k"] = settings.top_k
        if settings.min_p:
            body["min_p"] = settings.min_p
        if self.prompt.enable_thinking is not None:
            body["chat_template_kwargs"] = {"enable_thinking": self.prompt.enable_thinking}
        return body

    def respond(
        self, missing: AbstractSet[ProblemSample]
    ) -> Iterator[Mapping[ProblemSample, Reply]]:
        """See `asking.AnswerFn`: whatever has come since the last time, together.

        The first failure ends it.
        """
        waiting: Queue[ProblemSample] = Queue()
        for place in sorted(missing):
            waiting.put(place)
        come: Queue[tuple[ProblemSample, Reply] | Exception] = Queue()
        stop = Event()
        with connected(self.endpoint) as client:
            line = EndpointClient(self.endpoint, client, self.is_plain, stop)

            def work() -> None:
                try:
                    while not stop.is_set():
                        place = waiting.get_nowait()
                        come.put((place, line.ask(self.body(place))))
                except Empty:
                    return
                except Exception as error:  # raised where answers are taken
                    come.put(error)

            for _ in range(min(self.endpoint.at_once, len(missing))):
                Thread(
                    target=work, daemon=True
                ).start()  # an interrupt does not wait for long answers
            left = len(missing)
            try:
                while left:
                    found = _taken(come)
                    left -= len(found)
                    yield found
            finally:
                stop.set()


def _taken(come: Queue[tuple[ProblemSample, Reply] | Exception]) -> dict[ProblemSample, Reply]:
    """All that has come, at least one; a failure is raised once what came before it was taken."""
    found: dict[ProblemSample, Reply] = {}
    while True:
        try:
            one = come.get(block=not found)
        except Empty:
            return found
        if isinstance(one, Exception):
            if not found:
                raise one
            come.put(one)
            return found
        place, reply = one
        found[place] = reply
