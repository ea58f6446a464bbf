"""Answers to a suite from an endpoint: one request per answer, many of them in flight.

Every request has its own seed and is independent of the others, so there are no chunks as in
`generation`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from queue import Empty, Queue
from threading import Event, Thread

import torch

from reasontrain import rng
from reasontrain.data.prompts import PromptSettings
from reasontrain.data.sampling import Sampling
from reasontrain.data.thought_marks import KNOWN
from reasontrain.evaluation.answers import ProblemSample, Reply
from reasontrain.evaluation.endpoint_client import Endpoint, EndpointClient, Json, open_client
from reasontrain.rng import Stream
from reasontrain.types import NO_THOUGHT, Problem, ThoughtState, UserError


@dataclass(frozen=True, kw_only=True)
class EndpointRequests:
    """Requests for `num` answers to each problem.

    A request is a conversation, or a plain text to continue if the suite's prompt style is `plain`.
    `seed`, `temperature`, `top_p` and `max_tokens` are always sent, the others only if the suite
    sets them: `stop`, and `top_k`, `min_p` and `enable_thinking`, which most servers support beyond
    OpenAI's own API.
    """

    endpoint: Endpoint
    problems: Sequence[Problem]
    prompt: PromptSettings
    sampling: Sampling
    num: int
    seed: int

    def __post_init__(self) -> None:
        unsupported = {
            "sampling.thought": self.sampling.thought,
            "sampling.stop_ids": self.sampling.stop_ids,
            "prompt.max_tokens": self.prompt.max_tokens,
            "an image": next((problem.image for problem in self.problems if problem.image), None),
        }
        if names := [name for name, value in unsupported.items() if value]:
            raise UserError(
                f"an endpoint does not support {' or '.join(names)}; leave it out, or evaluate "
                "the weights directly"
            )
        if self.is_plain and (
            self.prompt.system is not None or self.prompt.enable_thinking is not None
        ):
            raise UserError(
                "prompt.system and prompt.enable_thinking need a conversation, and prompt.style "
                "is plain"
            )

    @property
    def is_plain(self) -> bool:
        """True if requests are plain texts to continue.

        With the style `auto`, requests are conversations, because a server does not report whether
        it has a chat template.
        """
        return self.prompt.style == "plain"

    def body(self, key: ProblemSample) -> dict[str, Json]:
        """The request for one answer."""
        m, sample = key
        settings = self.sampling
        problem = self.problems[m]
        number = rng.uniform(self.seed, Stream.ENDPOINT_SEEDS, torch.tensor(m * self.num + sample))
        body: dict[str, Json] = {
            "model": self.endpoint.model,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "max_tokens": settings.max_tokens,
            "seed": int(number * 2.0**31),
        }
        if self.is_plain:
            text = self.prompt.prompt_of(problem)
            if not isinstance(text, str):
                raise UserError(f"{problem.label} is a conversation, and prompt.style is plain")
            body["prompt"] = text
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

    def with_thought(self, key: ProblemSample, reply: Reply) -> Reply:
        """The reply with what the request and its text say of an unfinished thought.

        The server's template may open the thought, which then only ends in the text. See also
        `run.infer_thoughts`.
        """
        if reply.reasoning:
            state = NO_THOUGHT
        elif self.is_plain:
            prompt = str(self.body(key)["prompt"])
            state = KNOWN.state(prompt, chat=False, thinking=None)
        else:
            state = ThoughtState(expected=bool(self.prompt.enable_thinking))
        reading = KNOWN.read(reply.text, truncated=reply.truncated, state=state)
        only_thought = bool(reply.reasoning) and reply.truncated and not reply.text.strip()
        return replace(
            reply,
            unfinished=reading.unfinished or only_thought,
            answer_start=reading.start,
        )

    def answer(
        self, missing: AbstractSet[ProblemSample]
    ) -> Iterator[Mapping[ProblemSample, Reply]]:
        """See `generation.AnswerFn`; yields all replies that arrived since the last iteration.

        The first failure is raised and ends the iteration.
        """
        waiting: Queue[ProblemSample] = Queue()
        for key in sorted(missing):
            waiting.put(key)
        arrived: Queue[tuple[ProblemSample, Reply] | Exception] = Queue()
        stop = Event()
        with open_client(self.endpoint) as http_client:
            client = EndpointClient(self.endpoint, http_client, self.is_plain, stop)

            def work() -> None:
                try:
                    while not stop.is_set():
                        key = waiting.get_nowait()
                        reply = client.complete(self.body(key))
                        arrived.put((key, self.with_thought(key, reply)))
                except Empty:
                    return
                except Exception as error:  # raised in the consumer's thread
                    arrived.put(error)

            for _ in range(min(self.endpoint.at_once, len(missing))):
                # daemons, so that an interrupt does not wait for long answers
                Thread(target=work, daemon=True).start()
            num_left = len(missing)
            try:
                while num_left:
                    replies = _drain(arrived)
                    num_left -= len(replies)
                    yield replies
            finally:
                stop.set()


def _drain(
    arrived: Queue[tuple[ProblemSample, Reply] | Exception],
) -> dict[ProblemSample, Reply]:
    """Take all replies from the queue; wait until there is at least one.

    A failure is raised at the next call, so that the replies before it are kept.
    """
    replies: dict[ProblemSample, Reply] = {}
    while True:
        try:
            item = arrived.get(block=not replies)
        except Empty:
            return replies
        if isinstance(item, Exception):
            if not replies:
                raise item
            arrived.put(item)
            return replies
        key, reply = item
        replies[key] = reply
