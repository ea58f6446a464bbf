"""Client of a server with OpenAI's API: vLLM, SGLang, llama.cpp or a provider.

The key is read from OPENAI_API_KEY and is sent in a header, never written to a file, a log or a
message. The address must not contain a key.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Event
from typing import TypeVar

import httpx2

from reasontrain.types import RunError, UserError

KEY_VARIABLE = "OPENAI_API_KEY"
READ_S = 3600.0
"""Time limit of a response, in seconds: without streaming, nothing arrives until it is complete."""
CONNECT_S = 10.0
BUSY = frozenset({408, 409, 425, 429})
"""Status codes below 500 after which a request is retried."""
NOT_IMPLEMENTED = 501
"""The only status code from 500 up that a later request would get again."""
MAX_TRIES = 7
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0
MAX_QUOTED = 200
"""The length to which an error message shortens a server's response."""

Json = object
ReplyT = TypeVar("ReplyT")
NEUTRAL: Mapping[str, Json] = {
    "top_k": -1,
    "min_p": 0.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
}
SETTINGS_OF_SERVERS: Mapping[str, Mapping[str, Json]] = {
    "vllm": {**NEUTRAL, "include_stop_str_in_output": True},
    "sglang": {**NEUTRAL, "no_stop_trim": True},
    "llamacpp": {**NEUTRAL, "repeat_penalty": 1.0},
}
"""Settings with which a server answers as the local engine does, by `owned_by` in its `/models`.

vLLM and SGLang take what a request leaves out from the model's generation_config.json (Qwen2.5's
has a repetition penalty), and llama.cpp from its own defaults (`top_k` 40, `min_p` 0.05). A stop
text stays in the response. Other servers might refuse names that OpenAI's API does not have, so
nothing is sent to them.
"""


@dataclass(frozen=True, kw_only=True)
class Advice:
    """Words of error messages, which name the settings of whoever uses the endpoint.

    Attributes:
        url: the setting of the address.
        model: the setting of the model's name.
        lost: what follows when a server is given up.
        refused: what to change after a request is refused.
        expected: what a response should hold.
    """

    url: str = "--endpoint"
    model: str = "MODEL"
    lost: str = "the answers so far are kept, and the same command resumes"
    refused: str = "change the suite's settings (--set) or its --prompt"
    expected: str = "a completion"


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A model, by its name on a server.

    `at_once` requests are in flight at a time. After a transient failure, a request is retried
    after `first_wait_s` seconds, doubled each time up to a minute, or later if the server sends
    Retry-After; `deadline_s` bounds a request with its retries.
    """

    url: str
    model: str
    at_once: int
    first_wait_s: float = FIRST_WAIT_S
    deadline_s: float = math.inf
    advice: Advice = Advice()
    key: str = field(default_factory=lambda: os.environ.get(KEY_VARIABLE, ""), repr=False)

    def __post_init__(self) -> None:
        try:
            url = httpx2.URL(self.url)
        except httpx2.InvalidURL as error:
            raise UserError(
                f"{self.advice.url} is not a URL ({error}); expected something like "
                f"http://127.0.0.1:8000/v1"
            ) from None
        if url.scheme not in ("http", "https") or not url.host:
            raise UserError(
                f"{self.advice.url} must start with http:// or https:// and a host, like "
                "http://127.0.0.1:8000/v1"
            )
        if url.userinfo or url.query or url.fragment:
            raise UserError(
                f"{self.advice.url} may contain only host and path; set a key in {KEY_VARIABLE}, "
                "from where it is written nowhere"
            )
        if not self.key.isascii() or self.key != self.key.strip():
            raise UserError(f"{KEY_VARIABLE} contains blanks or non-ASCII characters; set it again")

    @property
    def host(self) -> str:
        """Host and port of the server, for reports."""
        return httpx2.URL(self.url).netloc.decode()

    def facts(self) -> dict[str, str]:
        """The facts for reports.

        There is no fingerprint, because the server does not expose its weights.
        """
        return {"model": self.model, "endpoint": self.host}


@dataclass(frozen=True)
class EndpointClient:
    """Send requests, and retry them after transient failures."""

    endpoint: Endpoint
    client: httpx2.Client
    stop: Event

    def complete(
        self, path: str, body: Mapping[str, Json], read: Callable[[Json], ReplyT]
    ) -> ReplyT:
        """Send a request and read its reply.

        Args:
            path: the route, below the endpoint's address.
            body: the request.
            read: converts the JSON of a response to a reply; raises KeyError, IndexError, TypeError
                or ValueError if it is not a completion, and UserError with a reason of its own.

        Returns:
            The reply.

        Raises:
            UserError: the server rejects the request, or its response is not a completion.
            RunError: all tries failed.
        """
        response = self._send("POST", path, body)
        if response.status_code != 200:
            raise UserError(self._refusal(response, path))
        try:
            return read(response.json())
        except UserError:  # a ValueError as well
            raise
        except (ValueError, KeyError, TypeError, IndexError) as error:
            advice = self.endpoint.advice
            raise UserError(
                f"{self.endpoint.host} does not return {advice.expected} "
                f"({self._quoted(response)}); check that the server has OpenAI's API, and that "
                f"{advice.url} is right (it usually ends in /v1)"
            ) from error

    def server_settings(self) -> Mapping[str, Json]:
        """The settings in `SETTINGS_OF_SERVERS` for this server.

        Raises RunError if the server does not answer.
        """
        response = self._send("GET", "models")
        try:
            models = as_object(response.json())["data"]
            owner = as_object(models[0])["owned_by"] if isinstance(models, list) else None
        except (ValueError, KeyError, TypeError, IndexError):
            return {}
        return SETTINGS_OF_SERVERS.get(str(owner), {})

    def _send(
        self, method: str, path: str, body: Mapping[str, Json] | None = None
    ) -> httpx2.Response:
        """Send a request until the response is final; raise RunError after the last try."""
        deadline_s = time.monotonic() + self.endpoint.deadline_s
        for num_tries in range(1, MAX_TRIES + 1):
            wait_s = self.endpoint.first_wait_s * 2.0 ** (num_tries - 1)
            left_s = min(READ_S, deadline_s - time.monotonic())
            timeout = httpx2.Timeout(left_s, connect=min(CONNECT_S, left_s))
            try:
                response = self.client.request(method, path, json=body, timeout=timeout)
            except httpx2.RequestError as error:
                trouble = (
                    f"does not answer ({type(error).__name__}: {self._without_key(str(error))})"
                )
            else:
                code = response.status_code
                if code == NOT_IMPLEMENTED or (code not in BUSY and code < 500):
                    return response
                trouble = f"answers {code} ({self._quoted(response)})"
                wait_s = max(wait_s, _retry_after(response))
            wait_s = min(wait_s, LONGEST_WAIT_S)
            if time.monotonic() + wait_s >= deadline_s:
                break
            if num_tries < MAX_TRIES and self.stop.wait(wait_s):
                break
        raise RunError(
            f"{self.endpoint.host} {trouble}, after {num_tries} "
            f"{'try' if num_tries == 1 else 'tries'}; {self.endpoint.advice.lost}"
        )

    def _refusal(self, response: httpx2.Response, path: str) -> str:
        """Explain the most likely cause of a rejected request."""
        code = response.status_code
        host = self.endpoint.host
        quoted = self._quoted(response)
        match code:
            case 401 | 403:
                key = (
                    f"the key in {KEY_VARIABLE}"
                    if self.endpoint.key
                    else f"a request without a key ({KEY_VARIABLE} is not set)"
                )
                return f"{host} refuses {key} ({code}: {quoted})"
            case 404:
                return (
                    f"{host} has no model {self.endpoint.model!r}, or no {path} below this "
                    f"address ({code}: {quoted}); "
                    f"{self.endpoint.advice.url} usually ends in /v1, and "
                    f"{self.endpoint.advice.model} is a name from its /models"
                )
            case _:
                return (
                    f"{host} rejects the request ({code}: {quoted}); {self.endpoint.advice.refused}"
                )

    def _quoted(self, response: httpx2.Response) -> str:
        """The start of a response, for an error message."""
        text = self._without_key(" ".join(response.text.split()))
        return (
            repr(text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}...")
            if text
            else "nothing"
        )

    def _without_key(self, text: str) -> str:
        """Remove the key from a server's text: some servers repeat it in their errors."""
        return text.replace(self.endpoint.key, "[the key]") if self.endpoint.key else text


def open_client(endpoint: Endpoint) -> httpx2.Client:
    """Open an HTTP client with as many connections as there are requests in flight."""
    return httpx2.Client(
        base_url=endpoint.url,
        headers={"Authorization": f"Bearer {endpoint.key}"} if endpoint.key else {},
        timeout=httpx2.Timeout(READ_S, connect=CONNECT_S),
        limits=httpx2.Limits(max_connections=endpoint.at_once),
    )


def first_choice(content: Json) -> Mapping[str, Json]:
    """The first choice of a completion; raises KeyError, IndexError, TypeError or ValueError if
    the content is not a completion."""
    choices = as_object(content)["choices"]
    if not isinstance(choices, list):
        raise TypeError("`choices` is not a list")
    return as_object(choices[0])


def as_object(value: Json) -> Mapping[str, Json]:
    """A value of JSON that is an object; raises TypeError otherwise."""
    if not isinstance(value, dict):
        raise TypeError("not a JSON object")
    return value


def _retry_after(response: httpx2.Response) -> float:
    """The seconds in a Retry-After header; 0 if there is none, or if it is a date."""
    value = response.headers.get("retry-after", "")
    return float(value) if value.isascii() and value.isdigit() else 0.0
