"""A server with OpenAI's API on loopback, in a thread, that answers from a script and remembers
what it was asked.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Body = dict[str, object]
HANG_UP = 0
"""A status that stands for closing the connection without a word."""


@dataclass
class Turn:
    """What is answered once."""

    status: int = 200
    body: object = ""
    headers: dict[str, str] = field(default_factory=dict)


NO_LIST = Turn(404, "no such path")
"""The list of models of a server that has none."""
Script = Callable[[str, Body], Turn]


@dataclass
class Server:
    """Where it listens, and every request: path, headers (lower case) and body."""

    url: str
    asked: list[tuple[str, dict[str, str], Body]]
    most_at_once: int = 0


def chat(text: str | None, *, finish: str = "stop", tokens: int | None = 5, **more: object) -> Turn:
    """A chat completion."""
    usage = {} if tokens is None else {"usage": {"completion_tokens": tokens, "prompt_tokens": 3}}
    message = {"role": "assistant", "content": text, **more}
    return Turn(
        body={"choices": [{"index": 0, "message": message, "finish_reason": finish}], **usage}
    )


@contextmanager
def serving(script: Script, models: Turn = NO_LIST) -> Iterator[Server]:
    """A server that answers each request by what the script says of its path and body.

    Its list of models is not among the requests that it remembers.
    """
    lock, here = threading.Lock(), {"now": 0}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                server.asked.append(
                    (self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                )
                here["now"] += 1
                server.most_at_once = max(server.most_at_once, here["now"])
            turn = script(self.path, body)
            with lock:
                here["now"] -= 1
            self._send(turn)

        def do_GET(self) -> None:
            self._send(models)

        def _send(self, turn: Turn) -> None:
            if turn.status == HANG_UP:
                self.close_connection = True
                return
            said = (
                turn.body.encode() if isinstance(turn.body, str) else json.dumps(turn.body).encode()
            )
            self.send_response(turn.status)
            for name, value in {
                "content-type": "application/json",
                "content-length": str(len(said)),
                **turn.headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        server = Server(f"http://127.0.0.1:{http.server_port}/v1", [])
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()
