"""A teacher behind a server, which returns log-probabilities of its likeliest ids for given ids."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from functools import partial
from threading import Event

import torch

from reasontrain.data.stored_evidence import hash_of
from reasontrain.data.stored_top_k import TopKTokens
from reasontrain.endpoint import (
    Advice,
    Endpoint,
    EndpointClient,
    Json,
    as_object,
    first_choice,
    open_client,
)
from reasontrain.recipe import ServedTeacher
from reasontrain.types import RunError, Tail, UserError
from reasontrain.vocab.analytic import LOGP_FLOOR

SMALLEST_REST = 2.0**-24
"""Least mass of all other ids: a server's log-probs are float32, whose sum is known no better."""
LARGEST_LOGP = 0.01
"""Largest log-prob that passes for one: rounding may leave it slightly above 0."""
PATH = "completions"
JOIN_S = 1.0
"""The time for requests in flight to end after a failure, in seconds."""
UNKNOWN = "\ufffd"
"""The text of a token that is a part of a character."""


class ServedTopK:
    """Log-probabilities that vLLM's completions route returns for the ids of a prompt."""

    def __init__(self, teacher: ServedTeacher) -> None:
        """Nothing is sent yet; raises UserError if the address is no URL."""
        self.teacher = teacher
        self.tail: Tail | None = teacher.tail if teacher.scores == "top_k" else None
        self._read: Read = (
            read_sampled
            if teacher.scores == "sampled"
            else partial(read_scores, top_k=teacher.top_k)
        )
        self.endpoint = endpoint_of(teacher)
        self._known: dict[str, TopKTokens] = {}

    def fetch(self, sequences: Iterable[Sequence[int]]) -> None:
        """See `TopKSource`; `at_once` requests are in flight, and the first failure is raised.

        Raises:
            RunError: the server does not answer in time, or not with the log-probs of these ids.
            UserError: the server refuses the request.
        """
        missing = {hash_of(ids): list(ids) for ids in sequences}
        missing = {key: ids for key, ids in missing.items() if key not in self._known}
        if not missing:
            return
        stop = Event()
        pool = ThreadPoolExecutor(self.teacher.at_once, thread_name_prefix="teacher")
        with open_client(self.endpoint) as http_client:
            client = EndpointClient(self.endpoint, http_client, stop)
            futures = {
                pool.submit(self._complete, client, ids, self._read): key
                for key, ids in missing.items()
            }
            try:
                for future in as_completed(futures):
                    self._known[futures[future]] = future.result()
            finally:
                # After a failure, requests that wait for another try end, and others never start.
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                # A connection that is opened while the client closes would stay open.
                wait(futures, timeout=JOIN_S)

    def of(self, ids: Sequence[int]) -> TopKTokens:
        """See `TopKSource`."""
        return self._known[hash_of(ids)]

    def forget(self) -> None:
        """See `TopKSource`."""
        self._known.clear()

    def check(self, ids: Sequence[int], texts: Sequence[str]) -> None:
        """Score one sequence, so that a server that cannot do it is known before a run starts.

        Raises RunError and UserError as `fetch` and `check_tokens` do.
        """
        with open_client(self.endpoint) as http_client:
            client = EndpointClient(self.endpoint, http_client, Event())
            self._complete(client, list(ids), partial(check_tokens, texts=texts, read=self._read))

    def _complete(self, client: EndpointClient, ids: list[int], read: Read) -> TopKTokens:
        """Send one sequence and read its numbers."""
        num = -1 if self.teacher.top_k is None else self.teacher.top_k
        if self.teacher.scores == "sampled":
            num = 1  # vLLM adds the token itself where it is not the likeliest
        body = {
            "model": self.teacher.model,
            "prompt": ids,
            "max_tokens": 1,  # none is not allowed by every version
            "temperature": 0.0,
            "prompt_logprobs": num,
            "return_token_ids": True,
        }
        numbers = partial(read, ids=ids, host=self.endpoint.host)
        return client.complete(PATH, body, numbers)


Read = Callable[..., TopKTokens]
"""Reads the numbers of a sequence from a completion, given `ids` and `host`."""


def endpoint_of(teacher: ServedTeacher) -> Endpoint:
    """The endpoint of a recipe's teacher, with advice about its keys."""
    limit = -1 if teacher.top_k is None else teacher.top_k
    return Endpoint(
        url=teacher.url,
        model=teacher.model,
        at_once=teacher.at_once,
        deadline_s=teacher.deadline_s,
        advice=Advice(
            url="teacher.url",
            model="teacher.model",
            lost="the same command goes on from the last checkpoint",
            refused=(
                f"if it allows fewer log-probs per token, start it with --max-logprobs {limit} or "
                "lower teacher.top_k; if the sequence is too long for it, raise --max-model-len"
            ),
            expected="the log-probs of given token ids (prompt_logprobs of vLLM)",
        ),
    )


def read_scores(content: Json, *, ids: Sequence[int], top_k: int | None, host: str) -> TopKTokens:
    """Read the numbers of a sequence from a completion, and check that they are of its ids.

    Args:
        content: the completion.
        ids: the ids that were sent.
        top_k: number of ids at each token; None for all.
        host: the server, for messages.

    Returns:
        Numbers of all tokens but the first, which nothing predicts.

    Raises:
        RunError: the numbers are not those of these ids.
        KeyError, IndexError, TypeError, ValueError: the content is not such a completion.
    """
    rows = [
        _likeliest(as_object(position), top_k) for position in _positions(content, ids, host)[1:]
    ]
    if top_k is not None and (short := min((len(row) for row in rows), default=top_k)) < top_k:
        raise RunError(
            f"the teacher at {host} returns {short} log-probs at a token, and teacher.top_k is "
            f"{top_k}; lower it, or start the server with --max-logprobs {top_k}"
        )
    width = max(map(len, rows), default=1)
    ids_TK = torch.full((len(rows), width), -1)
    logp_TK = torch.zeros(len(rows), width)
    for index, row in enumerate(rows):
        ids_TK[index, : len(row)] = torch.tensor([token for token, _ in row])
        logp_TK[index, : len(row)] = torch.tensor([logp for _, logp in row])
    mass_T = logp_TK.double().exp().masked_fill(ids_TK < 0, 0).sum(1)
    if not torch.isfinite(logp_TK).all() or bool((mass_T > 1.01).any()):
        raise RunError(
            f"the teacher at {host} returns log-probs whose mass is {float(mass_T.max()):.4g} at a "
            "token; they must be of one distribution"
        )
    if top_k is None:
        rest_T = torch.full((len(rows),), LOGP_FLOOR)
    else:
        rest_T = (1 - mass_T).clamp(min=SMALLEST_REST).log().float()
    return TopKTokens(ids_TK, logp_TK, rest_T)


def _positions(content: Json, ids: Sequence[int], host: str) -> list[Json]:
    """The log-probs of every token that was sent; raises as `read_scores` does."""
    choice = first_choice(content)
    echoed = choice["prompt_token_ids"]
    if echoed != list(ids):
        num = len(echoed) if isinstance(echoed, list) else 0
        raise RunError(
            f"the teacher at {host} scored other token ids than were sent ({num} for {len(ids)}); "
            "its server must take token ids as they are"
        )
    positions = choice["prompt_logprobs"]
    if not isinstance(positions, list) or len(positions) != len(ids):
        num = len(positions) if isinstance(positions, list) else 0
        raise RunError(
            f"the teacher at {host} returns log-probs of {num} tokens for {len(ids)} that were "
            "sent; its server must return prompt_logprobs of every token"
        )
    return positions


def read_sampled(content: Json, *, ids: Sequence[int], host: str) -> TopKTokens:
    """Read the log-prob of each token itself.

    Args:
        content: the completion.
        ids: the ids that were sent.
        host: the server, for messages.

    Returns:
        One id for each token but the first, which nothing predicts.

    Raises:
        RunError: the numbers are not those of these ids.
        KeyError, IndexError, TypeError, ValueError: the content is not such a completion.
    """
    logps: list[float] = []
    for token, position in list(zip(ids, _positions(content, ids, host), strict=True))[1:]:
        entry = as_object(position).get(str(token))
        if entry is None:
            raise RunError(
                f"the teacher at {host} returns no log-prob of a token that was sent (id {token}); "
                "its server must return that of each token, as vLLM does"
            )
        logps.append(_number(as_object(entry)["logprob"]))
    logp_T = torch.tensor(logps)
    if not torch.isfinite(logp_T).all() or bool((logp_T > LARGEST_LOGP).any()):
        raise RunError(
            f"the teacher at {host} returns a log-prob of {float(logp_T.max()):.4g}; it must be "
            "that of a probability"
        )
    ids_T1 = torch.tensor(ids[1:])[:, None]
    rest_T = (-torch.expm1(logp_T.double())).clamp(min=SMALLEST_REST).log().float()
    return TopKTokens(ids_T1, logp_T[:, None], rest_T)


def _likeliest(position: Mapping[str, Json], top_k: int | None) -> list[tuple[int, float]]:
    """Ids and log-probs at one token, likeliest first.

    vLLM adds the token itself where it is not among the likeliest.
    """
    pairs: list[tuple[int, float]] = []
    for token, entry in position.items():
        pairs.append((int(token), _number(as_object(entry)["logprob"])))
    pairs.sort(key=lambda pair: (-pair[1], pair[0]))
    return pairs[:top_k]


def _number(logp: Json) -> float:
    """A log-probability of a server; raises ValueError if it is none."""
    if isinstance(logp, bool) or not isinstance(logp, int | float) or math.isnan(logp):
        raise ValueError(f"{logp!r} is not a log-probability")
    return float(logp)


def check_tokens(
    content: Json, *, ids: Sequence[int], texts: Sequence[str], host: str, read: Read
) -> TopKTokens:
    """Read numbers as `read_scores` does, and compare the texts of the tokens with the student's.

    A text is that of a token alone; texts differ in blanks at their ends, and those of parts of a
    character say nothing.

    Args:
        content: the completion.
        ids: the ids that were sent.
        texts: their texts by the student's tokenizer.
        host: the server, for messages.
        read: reads the numbers.

    Raises:
        UserError: most of the texts differ: the teacher has another tokenizer.
        RunError: as `read_scores` does.
    """
    scored = read(content, ids=ids, host=host)
    positions = first_choice(content)["prompt_logprobs"]
    assert isinstance(positions, list), "it has been read"
    differing: list[str] = []
    num_compared = 0
    for token, text, position in list(zip(ids, texts, positions, strict=True))[1:]:
        entry = as_object(position).get(str(token))
        served = as_object(entry).get("decoded_token") if entry is not None else None
        if not isinstance(served, str) or UNKNOWN in served + text:
            continue
        if served.strip() and text.strip():
            num_compared += 1
            if served.strip() != text.strip():
                differing.append(f"id {token} is {served!r} there and {text!r} in the model")
    if 2 * len(differing) > num_compared:
        raise UserError(
            f"the teacher at {host} has another tokenizer: {differing[0]}; distillation needs one "
            "vocabulary"
        )
    return scored
