"""A real Chromium without a window, driven over a pipe by the protocol of its developer tools:
nothing to install beside it.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEADLINE_S = 120.0
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
    "--no-first-run",
)


class Tab:
    """One tab.

    `problems` holds what its console complained of, and every address that it asked for beside its
    page.
    """

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive, self._rest, self._next = send, receive, b"", 0
        self._session = ""
        self.problems: list[str] = []
        self.asked: list[str] = []
        target = self._ask("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = str(
            self._ask("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        )
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._ask(f"{domain}.enable", {})

    def open(self, page: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Load a file from disk, at a size and in a theme."""
        self.problems, self.asked = [], []
        self._ask(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", {"features": [theme]})
        self._ask("Page.navigate", {"url": page.resolve().as_uri()})
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def value(self, script: str) -> object:
        """What an expression is in the page; an error where it throws."""
        found = self._ask("Runtime.evaluate", {"expression": script, "returnByValue": True})
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until an expression holds."""
        end = time.monotonic() + DEADLINE_S
        while not self.value(condition):
            assert time.monotonic() < end, f"never true: {condition}"
            time.sleep(0.05)

    def click(self, selector: str) -> None:
        """Press the middle of an element with the mouse, as a person does."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.value(f"{element}.scrollIntoView({{block: 'center', inline: 'center'}})")
        x, y = self.value(
            f"(r => [r.x + r.width / 2, r.y + r.height / 2])({element}.getBoundingClientRect())"
        )  # type: ignore[misc]
        for kind in ("mousePressed", "mouseReleased"):
            self._ask(
                "Input.dispatchMouseEvent",
                {"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1},
            )

    def type(self, selector: str, text: str) -> None:
        """Put the cursor into a field and type, in place of what it holds."""
        self.click(selector)
        self.value(f"document.querySelector({json.dumps(selector)}).select()")
        self._ask("Input.insertText", {"text": text})

    def press(self, *keys: str) -> None:
        """Press keys, one after the other, wherever the focus is."""
        for key in keys:
            text = {"text": key} if len(key) == 1 else {}
            self._ask("Input.dispatchKeyEvent", {"type": "keyDown", "key": key, **text})
            self._ask("Input.dispatchKeyEvent", {"type": "keyUp", "key": key})

    def nameless(self, *roles: str) -> list[str]:
        """Roles of the controls that have no name for a screen reader."""
        self._ask("Accessibility.enable", {})
        nodes = self._ask("Accessibility.getFullAXTree", {})["nodes"]
        seen = [n for n in nodes if not n["ignored"] and n["role"]["value"] in roles]
        assert {n["role"]["value"] for n in seen} == set(roles), "not all of them are there"
        return [n["role"]["value"] for n in seen if not n.get("name", {}).get("value", "").strip()]

    def choose(self, selector: str, option: str) -> None:
        """Choose an option of a list by its value."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.value(
            f"{element}.value = {json.dumps(option)}; {element}.dispatchEvent(new "
            f"Event('change', {{bubbles: true}}))"
        )

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """A PNG of the page."""
        shot = self._ask("Page.captureScreenshot", {"captureBeyondViewport": whole})
        path.write_bytes(base64.b64decode(shot["data"]))

    def _ask(self, method: str, given: dict[str, object]) -> dict:
        self._next += 1
        message = {"id": self._next, "method": method, "params": given} | (
            {"sessionId": self._session} if self._session else {}
        )
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._next:
                assert "error" not in answer, answer
                return answer["result"]
            self._hear(answer)

    def _hear(self, event: dict) -> None:
        said = event.get("params", {})
        match event.get("method"):
            case "Log.entryAdded":
                self.problems.append(said["entry"]["text"])
            case (
                "Runtime.consoleAPICalled"
                | "Runtime.exceptionThrown"
                | "Page.javascriptDialogOpening"
            ):
                self.problems.append(json.dumps(said))
            case "Network.requestWillBeSent":
                self.asked.append(said["request"]["url"])

    def _read(self) -> dict:
        while b"\0" not in self._rest:
            part = os.read(self._receive, 1 << 20)
            assert part, "Chromium ended"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)


@contextmanager
def chromium() -> Iterator[Tab]:
    """A browser with a profile of its own, ended with the block."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    assert program, "these tests need Chromium: apt-get install chromium"
    profile = tempfile.mkdtemp()
    their_in, ours_out = os.pipe()
    ours_in, their_out = os.pipe()

    def hand_over() -> None:
        """The browser reads descriptor 3 and writes 4; first out of the way, as these may be the
        very numbers.
        """
        read, write = (
            fcntl.fcntl(their_in, fcntl.F_DUPFD, 10),
            fcntl.fcntl(their_out, fcntl.F_DUPFD, 10),
        )
        os.dup2(read, 3)
        os.dup2(write, 4)

    command = [
        program,
        *FLAGS,
        f"--user-data-dir={profile}",
        "--remote-debugging-pipe",
        "about:blank",
    ]
    process = subprocess.Popen(
        command,
        preexec_fn=hand_over,
        close_fds=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(their_in)
    os.close(their_out)
    try:
        yield Tab(ours_out, ours_in)
    finally:
        os.close(ours_out)
        os.close(ours_in)
        process.terminate()
        process.wait(DEADLINE_S)
        shutil.rmtree(profile, ignore_errors=True)
