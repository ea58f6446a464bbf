"""Answers to a suite from an endpoint: one request per answer, many of them in flight.

Every request has its own seed and is independent of the others, so there are no chunks as in
`generation`. Prompts are texts or conversations, which the server encodes, or token ids.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import partial
from queue import Empty, Queue
from threading import Event, Thread

import torch

from reasontrain import rng
from reasontrain.data.prompts import PromptSettings
from reasontrain.data.sampling import Sampling
from reasontrain.data.thought_marks import KNOWN
from reasontrain.endpoint import (
    Endpoint,
    EndpointClient,
    Json,
    as_object,
    first_choice,
    open_client,
)
from reasontrain.evaluation.answers import ProblemSample, Reply
from reasontrain.evaluation.generation import reply_of
from reasontrain.models import Description
from reasontrain.rng import Stream
from reasontrain.sampler.sequence import SequenceState, start_sequences
from reasontrain.types import NO_THOUGHT, Problem, Prompt, ThoughtState, UserError

JOIN_S = 1.0
"""The time for requests in flight to end after a failure, in seconds; long answers are left."""


@dataclass(frozen=True, kw_only=True)
class EndpointRequests(ABC):
    """Requests for `num` answers to each problem.

    `seed`, `temperature`, `top_p` and `max_tokens` are always sent, the others only if the suite
    sets them: `stop`, and `top_k` and `min_p`, which most servers support beyond OpenAI's own API.
    Known servers get what replaces their own defaults (`endpoint.SETTINGS_OF_SERVERS`).
    """

    endpoint: Endpoint
    sampling: Sampling
    num: int
    seed: int

    def __post_init__(self) -> None:
        unsupported = self.unsupported()
        if names := [name for name, value in unsupported.items() if value]:
            raise UserError(
                f"an endpoint does not support {' or '.join(names)}; leave it out, or evaluate "
                "the weights directly"
            )

    def unsupported(self) -> dict[str, object]:
        """Settings that these requests cannot carry, by their names."""
        return {
            "sampling.thought": self.sampling.thought,
            "sampling.environment": self.sampling.environment,
        }

    @property
    @abstractmethod
    def path(self) -> str:
        """The route below the endpoint's address."""

    @abstractmethod
    def prompt_fields(self, key: ProblemSample) -> dict[str, Json]:
        """The fields of a request that hold its prompt, and others that depend on it."""

    @abstractmethod
    def reply(self, key: ProblemSample, content: Json) -> Reply:
        """Read the reply to a request; the errors are those of `text_reply`."""

    def body(self, key: ProblemSample) -> dict[str, Json]:
        """The request for one answer."""
        m, sample = key
        settings = self.sampling
        number = rng.uniform(self.seed, Stream.ENDPOINT_SEEDS, torch.tensor(m * self.num + sample))
        body: dict[str, Json] = {
            "model": self.endpoint.model,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "max_tokens": settings.max_tokens,
            "seed": int(number * 2.0**31),
            **self.prompt_fields(key),
        }
        if settings.stop:
            body["stop"] = list(settings.stop)
        if settings.top_k:
            body["top_k"] = settings.top_k
        if settings.min_p:
            body["min_p"] = settings.min_p
        return body

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
            client = EndpointClient(self.endpoint, http_client, stop)
            server_settings = client.server_settings()

            def work() -> None:
                try:
                    while not stop.is_set():
                        key = waiting.get_nowait()
                        body = {**server_settings, **self.body(key)}
                        reply = client.complete(self.path, body, partial(self.reply, key))
                        arrived.put((key, reply))
                except Empty:
                    return
                except Exception as error:  # raised in the consumer's thread
                    arrived.put(error)

            # daemons, so that an interrupt does not wait for long answers
            num_threads = min(self.endpoint.at_once, len(missing))
            threads = [Thread(target=work, daemon=True) for _ in range(num_threads)]
            for thread in threads:
                thread.start()
            num_left = len(missing)
            try:
                while num_left:
                    replies = _drain(arrived)
                    num_left -= len(replies)
                    yield replies
            finally:
                stop.set()
                # a connection that is opened while the client closes would stay open
                deadline = time.monotonic() + JOIN_S
                for thread in threads:
                    thread.join(max(0.0, deadline - time.monotonic()))


@dataclass(frozen=True, kw_only=True)
class TextRequests(EndpointRequests):
    """Requests whose prompts are encoded by the server.

    A request is a conversation, or a plain text to continue if the suite's prompt style is `plain`.
    """

    problems: Sequence[Problem]
    prompt: PromptSettings

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.is_plain and (
            self.prompt.system is not None or self.prompt.enable_thinking is not None
        ):
            raise UserError(
                "prompt.system and prompt.enable_thinking need a conversation, and prompt.style "
                "is plain"
            )

    def unsupported(self) -> dict[str, object]:
        """See `EndpointRequests`."""
        return {
            **super().unsupported(),
            "sampling.stop_ids (without --tokenizer)": self.sampling.stop_ids,
            "prompt.max_tokens (without --tokenizer)": self.prompt.max_tokens,
            "an image": next((problem.image for problem in self.problems if problem.image), None),
        }

    @property
    def is_plain(self) -> bool:
        """True if requests are plain texts to continue.

        With the style `auto`, requests are conversations, because a server does not report whether
        it has a chat template.
        """
        return self.prompt.style == "plain"

    @property
    def path(self) -> str:
        """The route for completions of plain texts, or of conversations."""
        return "completions" if self.is_plain else "chat/completions"

    def prompt_fields(self, key: ProblemSample) -> dict[str, Json]:
        """The text or the conversation, with `enable_thinking` if the suite sets it."""
        problem = self.problems[key[0]]
        if self.is_plain:
            text = self.prompt.prompt_of(problem)
            if not isinstance(text, str):
                raise UserError(f"{problem.label} is a conversation, and prompt.style is plain")
            return {"prompt": text}
        fields: dict[str, Json] = {"messages": self.prompt.turns(problem)}
        if self.prompt.enable_thinking is not None:
            fields["chat_template_kwargs"] = {"enable_thinking": self.prompt.enable_thinking}
        return fields

    def reply(self, key: ProblemSample, content: Json) -> Reply:
        """Read the reply, with what the request and its text say of an unfinished thought.

        The server's template may open the thought, which then only ends in the text. See also
        `run.infer_thoughts`.
        """
        reply = text_reply(content, plain=self.is_plain)
        if reply.reasoning:
            state = NO_THOUGHT
        elif self.is_plain:
            prompt = str(self.prompt_fields(key)["prompt"])
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


@dataclass(frozen=True, kw_only=True)
class TokenRequests(EndpointRequests):
    """Requests with prompts as token ids, for servers that return the ids of responses (vLLM).

    Prompts, end tokens and texts are those of `description`, as when the weights are sampled here.

    Attributes:
        prompts: the encoded prompts, all of which fit the model.
        description: the model, as the server has it.
    """

    prompts: Sequence[Prompt]
    description: Description

    def unsupported(self) -> dict[str, object]:
        """See `EndpointRequests`."""
        images = (prompt.problem.image for prompt in self.prompts)
        return {**super().unsupported(), "an image": next((i for i in images if i), None)}

    @property
    def path(self) -> str:
        """The route for completions, which takes ids where vLLM's route for chats does not."""
        return "completions"

    def prompt_fields(self, key: ProblemSample) -> dict[str, Json]:
        """The ids of the prompt and of the end tokens, and the room for a response."""
        sequence = self._sequence(key)
        return {
            "prompt": list(sequence.prompt.ids),
            "max_tokens": sequence.budget,
            "stop_token_ids": sorted(self.description.stop_ids | frozenset(self.sampling.stop_ids)),
            "return_token_ids": True,
            "skip_special_tokens": False,  # in stop texts, special tokens count as their text
        }

    def reply(self, key: ProblemSample, content: Json) -> Reply:
        """Read the ids of a response.

        Raises UserError if there are none, or if the server answered another prompt.
        """
        sequence = self._sequence(key)
        choice = first_choice(content)
        ids = choice.get("token_ids")
        if not isinstance(ids, list) or choice.get("prompt_token_ids") != list(sequence.prompt.ids):
            raise UserError(
                f"{self.endpoint.host} does not return the ids of prompt and response "
                "(return_token_ids of vLLM), which --tokenizer needs; leave it out"
            )
        sequence.response = [int(token) for token in ids]
        sequence.stopped = choice.get("finish_reason") != "length"
        return reply_of(sequence.rollout(self.description.tokenizer))

    def _sequence(self, key: ProblemSample) -> SequenceState:
        """The sequence of one answer, without any tokens of the response."""
        m, sample = key
        (sequence,) = start_sequences(
            [self.prompts[m]],
            num=1,
            first_id=m * self.num + sample,
            max_tokens=self.sampling.max_tokens,
            context=self.description.context,
        )
        return sequence


def text_reply(content: Json, *, plain: bool) -> Reply:
    """Read the text of the first choice of a completion.

    A response that was cut within its thought may have no text. A thought that the server separates
    from the text (`reasoning_content`, in newer vLLM `reasoning`) stays separate. Raises KeyError,
    IndexError, TypeError or ValueError if the content is not a completion.
    """
    completion = as_object(content)
    choice = first_choice(content)
    message = choice if plain else as_object(choice["message"])
    text = message["text" if plain else "content"]
    finish_reason = choice.get("finish_reason")
    if text is None and isinstance(finish_reason, str):
        text = ""
    if not isinstance(text, str):
        raise TypeError("there is no text")
    thought = message.get("reasoning_content") or message.get("reasoning")
    usage = completion.get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return Reply(
        text=_encodable(text),
        truncated=finish_reason == "length",
        num_tokens=tokens if isinstance(tokens, int) else None,
        reasoning=_encodable(thought) if isinstance(thought, str) else "",
    )


def _encodable(text: str) -> str:
    """Replace lone surrogates, which JSON may contain and UTF-8 cannot encode."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


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
