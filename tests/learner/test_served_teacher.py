"""A served teacher: what is sent, how a response is read, and what each failure says.

The values of a real server are compared in tests/integration/test_served_teacher.py.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from reasontrain.learner.served_teacher import (
    SMALLEST_REST,
    ServedTopK,
    check_tokens,
    read_sampled,
    read_scores,
)
from reasontrain.recipe import ServedTeacher
from reasontrain.types import RunError, UserError
from reasontrain.vocab.analytic import LOGP_FLOOR
from tests.evaluation.server import HANG_UP, Body, Server, Turn, serving

IDS = [4, 5, 6]
TOP = {"5": (0.5, "b"), "6": (0.25, "c"), "7": (0.125, "d")}
"""Probability and text of the ids that the scripted teacher names at each token."""


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def completion(ids: list[int], **changes: object) -> dict[str, object]:
    """A response as vLLM's."""
    entries = {
        token: {"logprob": math.log(q), "rank": 1, "decoded_token": text}
        for token, (q, text) in TOP.items()
    }
    choice = {
        "text": "x",
        "prompt_token_ids": ids,
        "prompt_logprobs": [None, *[entries] * (len(ids) - 1)],
    }
    return {"choices": [{**choice, **changes}]}


def read(content: object, top_k: int | None = 2) -> object:
    return read_scores(content, ids=IDS, top_k=top_k, host="there")


def test_the_likeliest_ids_and_the_rest_worked_by_hand() -> None:
    # vLLM adds the token itself, here the last of three, which is not among the two likeliest
    tokens = read_scores(completion(IDS), ids=IDS, top_k=2, host="there")
    assert tokens.ids_TK.tolist() == [[5, 6], [5, 6]]
    assert_close(tokens.logp_TK.exp(), torch.tensor([[0.5, 0.25]] * 2))
    assert_close(tokens.log_rest_T.exp(), torch.tensor([0.25, 0.25]))
    every = read_scores(completion(IDS), ids=IDS, top_k=None, host="there")
    assert every.ids_TK.tolist() == [[5, 6, 7]] * 2
    assert every.log_rest_T.tolist() == [pytest.approx(LOGP_FLOOR)] * 2
    # a mass that rounds to 1 leaves the least rest, not none
    sure = {"5": {"logprob": 1e-8}}
    tokens = read_scores(
        completion(IDS, prompt_logprobs=[None, sure, sure]), ids=IDS, top_k=1, host="there"
    )
    assert tokens.log_rest_T.tolist() == [pytest.approx(math.log(SMALLEST_REST))] * 2


WRONG = {
    "other ids": (
        {"prompt_token_ids": [4, 5, 7]},
        "scored other token ids than were sent (3 for 3",
    ),
    "no ids": ({"prompt_token_ids": None}, "scored other token ids than were sent (0 for 3)"),
    "too short": ({"prompt_logprobs": [None, {}]}, "log-probs of 2 tokens for 3 that were sent"),
    "none": ({"prompt_logprobs": None}, "log-probs of 0 tokens for 3 that were sent"),
    "too few": (
        {"prompt_logprobs": [None, {"5": {"logprob": -1.0}}, {"5": {"logprob": -1.0}}]},
        "returns 1 log-probs at a token, and teacher.top_k is 2; lower it, or start the server "
        "with --max-logprobs 2",
    ),
    "no distribution": (
        {"prompt_logprobs": [None, *[{"5": {"logprob": 0.0}, "6": {"logprob": 0.0}}] * 2]},
        "log-probs whose mass is 2 at a token",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_numbers_of_other_ids_are_never_used(case: str) -> None:
    changes, message = WRONG[case]
    with pytest.raises(RunError) as error:
        read(completion(IDS, **changes))
    assert message in str(error.value)


def test_another_tokenizer_is_noticed_by_the_texts_of_tokens() -> None:
    content = completion([4, 5, 6, 7])
    ids = [4, 5, 6, 7]
    two = partial(read_scores, top_k=2)
    for texts in (["a", "b", "c", "d"], ["a", " b", "c ", "\ufffd"], ["a", "b", "c", "z"]):
        check_tokens(content, ids=ids, texts=texts, host="there", read=two)
    with pytest.raises(
        UserError, match="another tokenizer: id 5 is 'b' there and 'x' in the model"
    ):
        check_tokens(content, ids=ids, texts=["a", "x", "y", "d"], host="there", read=two)


def source(server: Server, **changes: object) -> ServedTopK:
    settings = {"url": server.url, "model": "t", "top_k": 2, "at_once": 3, **changes}
    used = ServedTopK(ServedTeacher(**settings))
    used.endpoint = replace(used.endpoint, first_wait_s=0.01)
    return used


def test_every_sequence_is_asked_once_in_a_step_few_at_a_time() -> None:
    sequences = [[i, i + 1, i + 2] for i in range(12)]
    with serving(lambda path, body: Turn(body=completion(body["prompt"]))) as server:
        used = source(server)
        used.fetch(sequences[:8])
        used.fetch([*sequences, sequences[0]])
        assert len(used.of(sequences[11])) == 2
        assert sorted(body["prompt"] for _, _, body in server.asked) == sequences
        assert server.most_at_once <= 3
        path, _, body = server.asked[0]
        assert path == "/v1/completions"
        assert {key: body[key] for key in ("model", "prompt_logprobs", "return_token_ids")} == {
            "model": "t",
            "prompt_logprobs": 2,
            "return_token_ids": True,
        }
        used.forget()
        used.fetch(sequences[:1])
        assert len(server.asked) == 13


def test_a_server_is_asked_for_the_sampled_tokens_alone() -> None:
    def own(path: str, body: Body) -> Turn:
        likeliest = {"9": {"logprob": -0.1}}
        entries = [likeliest | {str(token): {"logprob": -0.5 * token}} for token in body["prompt"]]
        return Turn(body=completion(body["prompt"], prompt_logprobs=[None, *entries[1:]]))

    with serving(own) as server:
        used = source(server, scores="sampled")
        used.fetch([IDS])
        assert [body["prompt_logprobs"] for _, _, body in server.asked] == [1]
        tokens = used.of(IDS)
        used.check(IDS, ["a", "b", "c"])
    assert tokens.ids_TK.tolist() == [[5], [6]]
    assert tokens.logp_TK.tolist() == [[-2.5], [-3.0]]
    assert_close(tokens.log_rest_T.exp(), 1 - tokens.logp_TK[:, 0].exp())
    other = {"7": {"logprob": -1.0}}
    with pytest.raises(RunError, match=r"no log-prob of a token that was sent \(id 5\)"):
        read_sampled(completion(IDS, prompt_logprobs=[None, other, other]), ids=IDS, host="there")
    above = {"5": {"logprob": 0.5}, "6": {"logprob": -1.0}}
    with pytest.raises(RunError, match=r"a log-prob of 0\.5; it must be that of a probability"):
        read_sampled(completion(IDS, prompt_logprobs=[None, above, above]), ids=IDS, host="there")


def failing(*turns: Turn) -> Callable[[str, Body], Turn]:
    """A script that fails so, and then answers."""
    left = list(turns)
    return lambda path, body: left.pop(0) if left else Turn(body=completion(body["prompt"]))


def test_transient_failures_are_tried_again() -> None:
    busy = (Turn(429, "slow down", {"retry-after": "0"}), Turn(503, "loading"), Turn(HANG_UP))
    with serving(failing(*busy)) as server:
        used = source(server, at_once=1)
        used.fetch([IDS])
        assert len(used.of(IDS)) == 2
        assert len(server.asked) == 4


LIMIT = "Requested prompt logprobs of 30, which is greater than max allowed: 20"
FAILURES: dict[str, tuple[Turn, type[Exception], str]] = {
    "limit": (Turn(400, {"error": LIMIT}), UserError, "start it with --max-logprobs 2 or lower"),
    "no such model": (
        Turn(404, "no"),
        UserError,
        "teacher.url usually ends in /v1, and teacher.mod",
    ),
    "no log-probs": (
        Turn(body={"choices": [{"text": "x"}]}),
        UserError,
        "does not return the log-probs of given token ids (prompt_logprobs of vLLM)",
    ),
    "no JSON": (Turn(body="<html>"), UserError, "does not return the log-probs of given token ids"),
    "key": (Turn(401, "who"), UserError, "OPENAI_API_KEY"),
    "dead": (Turn(500, "oops"), RunError, "; the same command goes on from the last checkpoint"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_failure_is_one_sentence(case: str) -> None:
    turn, kind, message = FAILURES[case]
    with serving(lambda path, body: turn) as server, pytest.raises(kind) as error:
        source(server).fetch([IDS, IDS[:2]])
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_deadline_ends_the_tries_and_a_request_without_an_answer() -> None:
    def slow(path: str, body: Body) -> Turn:
        time.sleep(1.5)
        return Turn(body=completion(body["prompt"]))

    start_s = time.monotonic()
    with serving(slow) as server, pytest.raises(RunError, match="does not answer"):
        source(server, deadline_s=0.5).fetch([IDS])
    with pytest.raises(RunError, match=r"does not answer .* after 1 try"):
        source(Server("http://127.0.0.1:9/v1", []), deadline_s=0.01).fetch([IDS])
    assert time.monotonic() - start_s < 60
