"""A server with OpenAI's API (vLLM, SGLang, llama.cpp, a provider) as the one who answers: text in,
text out, no token ids.

The key is read from OPENAI_API_KEY and goes into a header, never into a file, a log or a message;
the address may hold no secret.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Event

import httpx2

from reasontrain.evaluation.answers import Reply
from reasontrain.types import RunError, UserError

KEY_VARIABLE = "OPENAI_API_KEY"
READ_S, CONNECT_S = 3600.0, 10.0
"""A long answer is silent until it is whole."""
BUSY = frozenset({408, 409, 425, 429})
TRIES, FIRST_WAIT_S, LONGEST_WAIT_S = 7, 1.0, 60.0
MAX_QUOTED = 200

Json = object


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A model by its name at a server.

    `at_once` requests are under way at a time; one that fails for a while is sent again.

    Waits grow from `first_wait_s`, doubled each time up to a minute; a server may ask for as much
    by Retry-After.
    """

    url: str
    model: str
    at_once: int
    first_wait_s: float = FIRST_WAIT_S
    key: str = field(default_factory=lambda: os.environ.get(KEY_VARIABLE, ""), repr=False)

    def __post_init__(self) -> None:
        try:
            url = httpx2.URL(self.url)
        except httpx2.InvalidURL as error:
            raise UserError(
                f"--endpoint is no address ({error}); expected something like "
                f"http://127.0.0.1:8000/v1"
            ) from None
        if url.scheme not in ("http", "https") or not url.host:
            raise UserError(
                "--endpoint should begin with http:// or https:// and a host, as "
                "http://127.0.0.1:8000/v1 does"
            )
        if url.userinfo or url.query or url.fragment:
            raise UserError(
                f"--endpoint holds more than host and path; a key is read from "
                f"{KEY_VARIABLE} and is written nowhere"
            )
        if not self.key.isascii() or self.key != self.key.strip():
            raise UserError(f"{KEY_VARIABLE} holds blanks or letters that no key has; set it again")

    @property
    def host(self) -> str:
        """Who answers, as reports name it."""
        return httpx2.URL(self.url).netloc.decode()

    def facts(self) -> dict[str, str]:
        """What a report says of it.

        Whose weights answer is known to the server alone, so there is no fingerprint.
        """
        return {"model": self.model, "endpoint": self.host}


@dataclass(frozen=True)
class EndpointClient:
    """Asks one question until it is answered, or it is clear that it will not be."""

    endpoint: Endpoint
    client: httpx2.Client
    plain: bool
    stop: Event

    @property
    def path(self) -> str:
        """Where texts are continued, or conversations."""
        return "completions" if self.plain else "chat/completions"

    def ask(self, body: Mapping[str, Json]) -> Reply:
        """The reply; raises UserError where the server refuses, and RunError where it failed too
        often.
        """
        for tried in range(1, TRIES + 1):
            wait_s = self.endpoint.first_wait_s * 2.0 ** (tried - 1)
            try:
                response = self.client.post(self.path, json=body)
            except httpx2.RequestError as error:
                trouble = f"does not answer ({type(error).__name__}: {self._inert(str(error))})"
            else:
                if response.status_code == 200:
                    return self._read(response)
                if response.status_code not in BUSY and response.status_code < 500:
                    raise UserError(self._refusal(response))
                trouble = f"answers {response.status_code} ({self._quoted(response)})"
                wait_s = max(wait_s, _retry_after(response))
            if tried < TRIES and self.stop.wait(min(wait_s, LONGEST_WAIT_S)):
                break
        raise RunError(
            f"{self.endpoint.host} {trouble}, after {tried} tries; what was answered is "
            f"kept, and the same command goes on"
        )

    def _refusal(self, response: httpx2.Response) -> str:
        """What a refusal most likely means."""
        code, host, said = response.status_code, self.endpoint.host, self._quoted(response)
        match code:
            case 401 | 403:
                key = (
                    f"the key in {KEY_VARIABLE}"
                    if self.endpoint.key
                    else f"a request without a key ({KEY_VARIABLE} is not set)"
                )
                return f"{host} refuses {key} ({code}: {said})"
            case 404:
                return (
                    f"{host} knows no model {self.endpoint.model!r} or no {self.path} "
                    f"below this address ({code}: {said}); "
                    "--endpoint usually ends in /v1, and MODEL is a name that its /models lists"
                )
            case _:
                return (
                    f"{host} does not take the request ({code}: {said}); change the suite's "
                    f"settings (--set) or its --prompt"
                )

    def _read(self, response: httpx2.Response) -> Reply:
        """The reply in a body; raises UserError where there is none."""
        try:
            return _reply(response.json(), plain=self.plain)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise UserError(
                f"{self.endpoint.host} answers with something that is no completion "
                f"({self._quoted(response)}); is it a server "
                "with OpenAI's API, and is its address right (it usually ends in /v1)?"
            ) from error

    def _quoted(self, response: httpx2.Response) -> str:
        """The beginning of what a server said."""
        text = self._inert(" ".join(response.text.split()))
        return (
            repr(text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}...")
            if text
            else "nothing"
        )

    def _inert(self, text: str) -> str:
        """A text of others without the key, which some servers say again."""
        return text.replace(self.endpoint.key, "[the key]") if self.endpoint.key else text


def connected(endpoint: Endpoint) -> httpx2.Client:
    """Connections to the endpoint, as many as there are requests at once."""
    return httpx2.Client(
        base_url=endpoint.url,
        headers={"Authorization": f"Bearer {endpoint.key}"} if endpoint.key else {},
        timeout=httpx2.Timeout(READ_S, connect=CONNECT_S),
        limits=httpx2.Limits(max_connections=endpoint.at_once),
    )


def _reply(content: Json, *, plain: bool) -> Reply:
    """The first choice of a completion; a response that ran into its limit may have no text, as of
    a thought that did not end.

    The thought of a thinking model, where the server parts it from the text (`reasoning_content`,
    in newer vLLM `reasoning`), is kept apart. Raises KeyError, IndexError, TypeError or ValueError
    where this is no completion.
    """
    whole = _object(content)
    choices = whole["choices"]
    if not isinstance(choices, list):
        raise TypeError("`choices` is no list")
    choice = _object(choices[0])
    said = choice if plain else _object(choice["message"])
    text, ending = said["text" if plain else "content"], choice.get("finish_reason")
    if text is None and isinstance(ending, str):
        text = ""
    if not isinstance(text, str):
        raise TypeError("there is no text")
    thought = said.get("reasoning_content") or said.get("reasoning")
    usage = whole.get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return Reply(
        text=_mended(text),
        truncated=ending == "length",
        num_tokens=tokens if isinstance(tokens, int) else None,
        reasoning=_mended(thought) if isinstance(thought, str) else "",
    )


def _object(value: Json) -> Mapping[str, Json]:
    if not isinstance(value, dict):
        raise TypeError("no JSON object")
    return value


def _mended(text: str) -> str:
    """Text that UTF-8 has bytes for: JSON may hold half a surrogate pair."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _retry_after(response: httpx2.Response) -> float:
    """Seconds that a server asks to be left alone for; 0 where it does not say so in seconds."""
    said = response.headers.get("retry-after", "")
    return float(said) if said.isascii() and said.isdigit() else 0.0
