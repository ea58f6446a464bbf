"""A model behind an address: what is sent, what is made of answers, what is tried again, what is
refused, and the key.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import cycle

import pytest

from reasontrain import models
from reasontrain.data.prompts import PromptSettings
from reasontrain.data.sampling import Sampling
from reasontrain.endpoint import MAX_TRIES, SETTINGS_OF_SERVERS, Endpoint
from reasontrain.evaluation.answers import ProblemSample, Reply
from reasontrain.evaluation.endpoint_generation import TextRequests, TokenRequests
from reasontrain.models import ModelSettings
from reasontrain.types import Image, Problem, Prompt, RunError, UserError
from tests.evaluation.server import HANG_UP, Body, Script, Server, Turn, chat, serving

KEY = "sk-secret-7f3a"
PROBLEMS = [Problem(id=f"p{i}", prompt=f"What is {i}+{i}?", answer=str(2 * i)) for i in range(4)]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def requests(
    url: str,
    prompt: PromptSettings | None = None,
    sampling: Sampling | None = None,
    *,
    num: int = 1,
    at_once: int = 2,
    seed: int = 0,
) -> TextRequests:
    return TextRequests(
        endpoint=Endpoint(url=url, model="the-model", at_once=at_once, first_wait_s=0.01),
        problems=PROBLEMS,
        prompt=prompt or PromptSettings(),
        sampling=sampling or Sampling(temperature=0.5, top_p=0.9, max_tokens=77),
        num=num,
        seed=seed,
    )


def asked(
    script: Script, missing: set[ProblemSample], **given: object
) -> tuple[dict[ProblemSample, Reply], Server]:
    with serving(script) as server:
        replies = requests(server.url, **given).answer(missing)
        return {place: reply for some in replies for place, reply in some.items()}, server


def one(turn: Turn) -> Reply:
    found, _ = asked(lambda path, body: turn, {(0, 0)})
    return found[0, 0]


def question(body: Body) -> str:
    return body["messages"][-1]["content"]


def test_every_place_is_asked_once_and_gets_its_own_answer() -> None:
    places = {(m, s) for m in range(4) for s in range(3)}
    found, server = asked(
        lambda path, body: chat(f"{question(body)} {body['seed']}"), places, num=3
    )
    assert len(server.asked) == 12
    assert {(place, reply.text.rpartition(" ")[0]) for place, reply in found.items()} == {
        (place, f"What is {place[0]}+{place[0]}?") for place in places
    }
    assert len({body["seed"] for _, _, body in server.asked}) == 12  # of each answer its own


def test_what_is_sent() -> None:
    settings = PromptSettings(system="Be brief.", template="Q: {problem}")
    _, server = asked(lambda path, body: chat("4"), {(2, 0)}, prompt=settings)
    ((path, headers, body),) = server.asked
    assert path == "/v1/chat/completions"
    assert "authorization" not in headers
    seed = body.pop("seed")
    assert body == {
        "model": "the-model",
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 77,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Q: What is 2+2?"},
        ],
    }
    assert isinstance(seed, int)
    assert 0 <= seed < 2**31


def test_what_openai_does_not_know_is_sent_where_the_suite_sets_it() -> None:
    sampling = Sampling(top_k=20, min_p=0.1, stop=("\n\n", "Q:"))
    _, server = asked(
        lambda path, body: chat("4"),
        {(0, 0)},
        prompt=PromptSettings(enable_thinking=False),
        sampling=sampling,
    )
    body = server.asked[0][2]
    assert (body["top_k"], body["min_p"], body["stop"]) == (20, 0.1, ["\n\n", "Q:"])
    assert body["chat_template_kwargs"] == {"enable_thinking": False}


@pytest.mark.parametrize("owner", [*SETTINGS_OF_SERVERS, "openai", None])
def test_known_servers_get_neutral_settings_and_others_nothing(owner: str | None) -> None:
    """No known server may take a setting from a file or a default of its own."""
    listed = Turn(body={"object": "list", "data": [{"id": "the-model", "owned_by": owner}]})
    with serving(lambda path, body: chat("4"), listed) as server:
        list(requests(server.url, sampling=Sampling(top_k=20)).answer({(0, 0)}))
    ((_, _, body),) = server.asked
    known = {"seed", "model", "messages", "temperature", "top_p", "max_tokens", "top_k"}
    assert body["top_k"] == 20  # the suite's own, in all cases
    if owner in SETTINGS_OF_SERVERS:
        assert {key: body[key] for key in ("min_p", "repetition_penalty")} == {
            "min_p": 0.0,
            "repetition_penalty": 1.0,
        }
        assert known < body.keys()
    else:
        assert body.keys() == known


@pytest.mark.parametrize(
    "models", [Turn(404, "no"), Turn(501, "no"), Turn(body="<html>"), Turn(body={"data": []})]
)
def test_a_server_without_a_list_of_models_is_used_all_the_same(models: Turn) -> None:
    with serving(lambda path, body: chat("4"), models) as server:
        (replies,) = requests(server.url).answer({(0, 0)})
    assert replies[0, 0].text == "4"


def by_ids(turn: Turn, sampling: Sampling | None = None) -> tuple[Reply, Body]:
    """The reply to a prompt of ids, and the request."""
    with serving(lambda path, body: turn) as server:
        requests = TokenRequests(
            endpoint=Endpoint(url=server.url, model="m", at_once=1),
            prompts=[Prompt(problem=PROBLEMS[0], ids=(5, 6, 7))],
            description=models.describe(ModelSettings(path="testbed:student")),
            sampling=sampling or Sampling(max_tokens=9, stop_ids=(40,)),
            num=1,
            seed=0,
        )
        (replies,) = requests.answer({(0, 0)})
    return replies[0, 0], server.asked[0][2]


def ids_turn(**changes: object) -> Turn:
    """A completion with ids, as vLLM's."""
    choice = {"text": "not read", "finish_reason": "stop", "token_ids": [24, 507]}
    return Turn(body={"choices": [{**choice, "prompt_token_ids": [5, 6, 7], **changes}]})


def test_token_ids_go_in_and_come_out() -> None:
    reply, body = by_ids(ids_turn())
    assert (body["prompt"], body["max_tokens"]) == ([5, 6, 7], 9)
    assert body["return_token_ids"]
    assert body["stop_token_ids"] == [40, 507, 509]
    assert reply == Reply(text="9", truncated=False, num_tokens=2)
    cut, _ = by_ids(ids_turn(finish_reason="length", token_ids=[24]))
    assert cut == Reply(text="9", truncated=True, num_tokens=1)


@pytest.mark.parametrize(
    "change", [{"token_ids": None}, {"prompt_token_ids": None}, {"prompt_token_ids": [5, 6]}]
)
def test_a_server_that_returns_no_ids_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(UserError, match="does not return the ids of prompt and response"):
        by_ids(ids_turn(**change))


def test_a_plain_prompt_is_continued() -> None:
    turn = Turn(
        body={
            "choices": [{"text": " 4.", "finish_reason": "length"}],
            "usage": {"completion_tokens": 2},
        }
    )
    found, server = asked(
        lambda path, body: turn,
        {(2, 0)},
        prompt=PromptSettings(style="plain", template="Q: {problem}\nA:"),
    )
    ((path, _, body),) = server.asked
    assert (path, body["prompt"]) == ("/v1/completions", "Q: What is 2+2?\nA:")
    assert "messages" not in body
    assert found[2, 0] == Reply(text=" 4.", truncated=True, num_tokens=2)


def test_seeds_depend_on_the_runs_seed_and_the_place_alone() -> None:
    def seeds(missing: set[ProblemSample], seed: int) -> dict[str, int]:
        _, server = asked(lambda path, body: chat("4"), missing, seed=seed)
        return {question(body): body["seed"] for _, _, body in server.asked}

    every = seeds({(m, 0) for m in range(4)}, 0)
    assert seeds({(3, 0)}, 0).items() <= every.items()
    assert seeds({(3, 0)}, 1).items().isdisjoint(every.items())


def test_answers_as_servers_give_them() -> None:
    assert one(chat("4")) == Reply(text="4", truncated=False, num_tokens=5)
    assert one(chat("4", finish="length")).truncated
    assert one(chat("4", tokens=None)).num_tokens is None
    thought = chat("4", reasoning_content="2+2 is 5, so \\boxed{5}. No.")
    assert one(thought) == Reply(
        text="4", truncated=False, num_tokens=5, reasoning="2+2 is 5, so \\boxed{5}. No."
    )
    assert one(chat("4", reasoning="vLLM's")).reasoning == "vLLM's"
    assert one(chat(None, finish="length", reasoning_content="so lo")) == Reply(
        text="", truncated=True, num_tokens=5, reasoning="so lo", unfinished=True
    )
    assert (
        one(chat("half \ud83d of a pair, whole \U0001f600")).text
        == "half � of a pair, whole \U0001f600"
    )


THINKING = PromptSettings(enable_thinking=True)
OPENED = PromptSettings(style="plain", template="Q: {problem}\nA: <think>\n")


@pytest.mark.parametrize(
    ("text", "finish", "prompt", "is_unfinished", "answer"),
    [
        ("<think>so 4", "length", PromptSettings(), True, None),
        ("<think>so 4", "stop", PromptSettings(), True, None),
        ("so 4 </think> 4", "stop", PromptSettings(), False, " 4"),
        ("so 4 </think> 4", "length", THINKING, False, " 4"),
        ("The answer is 4. Or", "length", THINKING, True, None),
        ("The answer is 4.", "stop", THINKING, False, "The answer is 4."),
        ("The answer is 4. Or", "length", PromptSettings(), False, "The answer is 4. Or"),
        ("so 4", "stop", OPENED, True, None),
        ("so 4 </think> 4", "stop", OPENED, False, " 4"),
    ],
)
def test_thoughts_that_a_server_gives_out_as_text(
    text: str, finish: str, prompt: PromptSettings, is_unfinished: bool, answer: str | None
) -> None:
    turn = chat(text, finish=finish)
    if prompt.style == "plain":
        turn = Turn(body={"choices": [{"text": text, "finish_reason": finish}]})
    found, _ = asked(lambda path, body: turn, {(0, 0)}, prompt=prompt)
    reply = found[0, 0]
    assert reply.unfinished == is_unfinished
    if answer is not None:
        assert reply.text[reply.answer_start :] == answer


@pytest.mark.parametrize(
    "turn",
    [
        Turn(body="<html>It works!</html>"),
        Turn(body='{"choices": [{"message": '),
        Turn(body={"choices": []}),
        Turn(body={"choices": [{"message": {}}]}),
        Turn(body={"choices": [{"message": {"content": ["4"]}}]}),
        Turn(body={"error": "overloaded"}),
        Turn(body=[]),
    ],
)
def test_what_is_no_completion_is_one_sentence(turn: Turn) -> None:
    with pytest.raises(UserError, match=r"does not return a completion .*it usually ends in /v1"):
        one(turn)


REFUSED = {
    401: f"refuses a request without a key (OPENAI_API_KEY is not set) (401: 'no {KEY}')",
    404: "has no model 'the-model', or no chat/completions below this address (404",
    400: "rejects the request (400: 'no sk-secret-7f3a'); change the suite's settings",
    422: "rejects the request (422",
    301: "rejects the request (301",
}


@pytest.mark.parametrize("status", REFUSED)
def test_a_refusal_is_not_tried_again(status: int) -> None:
    with serving(lambda path, body: Turn(status, f"no\n {KEY}")) as server:
        with pytest.raises(UserError) as error:
            list(requests(server.url, at_once=1).answer({(0, 0), (1, 0)}))
        assert REFUSED[status] in str(error.value)
        assert server.url.removeprefix("http://").removesuffix("/v1") in str(error.value)
        assert len(server.asked) == 1


def test_the_key_goes_into_a_header_and_into_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    script: Iterator[Turn] = cycle(
        [chat("4"), Turn(401, {"error": f"Incorrect API key provided: {KEY}"})]
    )
    with serving(lambda path, body: next(script)) as server:
        asking = requests(server.url, at_once=1)
        assert KEY not in repr(asking) + str(asking.endpoint.facts())
        with pytest.raises(
            UserError,
            match=r"refuses the key in OPENAI_API_KEY .*Incorrect API key provided: \[the key\]",
        ) as error:
            list(asking.answer({(0, 0), (1, 0)}))
        assert {headers["authorization"] for _, headers, _ in server.asked} == {f"Bearer {KEY}"}
        assert all(
            KEY not in str(part)
            for part in (error.value, error.value.__cause__, error.value.__context__)
        )


@pytest.mark.parametrize(
    "trouble", [Turn(429, "slow down"), Turn(500, "oops"), Turn(503), Turn(HANG_UP)]
)
def test_what_may_pass_is_tried_again(trouble: Turn) -> None:
    turns = iter([trouble, trouble, chat("4")])
    found, server = asked(lambda path, body: next(turns), {(0, 0)})
    assert found[0, 0].text == "4"
    assert len(server.asked) == 3
    assert (
        len({str(body) for _, _, body in server.asked}) == 1
    )  # the same request, by the same seed


def test_a_server_says_how_long_it_wants_to_be_left_alone() -> None:
    turns = iter([Turn(429, headers={"retry-after": "1"}), chat("4")])
    before = time.monotonic()
    asked(lambda path, body: next(turns), {(0, 0)})
    assert time.monotonic() - before >= 1


def test_what_does_not_pass_ends_and_what_came_before_is_there() -> None:
    found: dict[ProblemSample, Reply] = {}

    def script(path: str, body: Body) -> Turn:
        return chat("0") if question(body) == "What is 0+0?" else Turn(503, "loading")

    with serving(script) as server:
        replies = requests(server.url, at_once=1).answer({(0, 0), (1, 0), (2, 0)})
        with pytest.raises(
            RunError,
            match=rf"answers 503 \('loading'\), after {MAX_TRIES} tries; "
            r".* the same command resumes",
        ):
            found.update(pair for some in replies for pair in some.items())
        assert found.keys() == {(0, 0)}
        assert len(server.asked) == 1 + MAX_TRIES
        url = server.url
    with pytest.raises(RunError, match=r"does not answer \(ConnectError"):  # it is gone
        list(requests(url).answer({(0, 0)}))


def test_many_requests_are_under_way_at_once() -> None:
    together = threading.Barrier(4, timeout=20)

    def script(path: str, body: Body) -> Turn:
        together.wait()
        return chat("4")

    found, server = asked(script, {(m, 0) for m in range(4)}, at_once=4)
    assert (len(found), server.most_at_once) == (4, 4)


def test_no_more_than_that_are() -> None:
    def script(path: str, body: Body) -> Turn:
        time.sleep(0.05)
        return chat("4")

    _, server = asked(script, {(m, s) for m in range(4) for s in range(3)}, num=3, at_once=3)
    assert server.most_at_once <= 3


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("127.0.0.1:8000/v1", "must start with http"),
        ("http://", "must start with http"),
        ("http://me:hunter2@host/v1", "may contain only host and path"),
        ("http://host/v1?api-key=hunter2", "may contain only host and path"),
        ("http://host:port/v1", "is not a URL"),
    ],
)
def test_an_address_is_host_and_path(url: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        Endpoint(url=url, model="m", at_once=1)
    assert "hunter2" not in str(error.value)


def test_a_key_of_blanks_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    with pytest.raises(UserError, match="OPENAI_API_KEY contains blanks") as error:
        Endpoint(url="http://host/v1", model="m", at_once=1)
    assert KEY not in str(error.value)


@pytest.mark.parametrize(
    ("prompt", "sampling", "said"),
    [
        (PromptSettings(), Sampling(stop_ids=(5,)), "sampling.stop_ids"),
        (PromptSettings(max_tokens=5), Sampling(), "prompt.max_tokens"),
        (PromptSettings(style="plain", system="s"), Sampling(), "need a conversation"),
    ],
)
def test_what_an_endpoint_cannot_be_told_is_refused(
    prompt: PromptSettings, sampling: Sampling, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        requests("http://host/v1", prompt, sampling)


def test_images_and_conversations_for_plain_prompts_are_refused() -> None:
    endpoint = Endpoint(url="http://host/v1", model="m", at_once=1)
    shown = Problem(id="a", prompt="?", image=Image(path="x.png"))
    turns = Problem(id="b", prompt=({"role": "user", "content": "?"},))
    with pytest.raises(UserError, match="does not support an image"):
        TextRequests(
            endpoint=endpoint,
            problems=[shown],
            prompt=PromptSettings(),
            sampling=Sampling(),
            num=1,
            seed=0,
        )
    plain = PromptSettings(style="plain")
    with pytest.raises(UserError, match="problem b is a conversation"):
        TextRequests(
            endpoint=endpoint, problems=[turns], prompt=plain, sampling=Sampling(), num=1, seed=0
        ).body((0, 0))
