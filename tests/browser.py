"""A headless Chromium for tests of pages, driven through a pair of pipes.

It needs no driver program and no port: Chromium reads commands of its DevTools protocol
from descriptor 3 and answers on descriptor 4.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_MAX_WAIT_SECONDS = 60.0


def chromium() -> str:
    """Return the program.

    Raises:
        AssertionError: If there is none; a test that left itself out would hide that
            pages are not looked at.
    """
    for name in _PROGRAMS:
        if found := shutil.which(name):
            return found
    raise AssertionError(
        "No Chromium is on PATH, so pages cannot be looked at. Install one, on Debian "
        "and Ubuntu with 'apt-get install chromium', or leave these tests out with "
        "-m 'not browser'."
    )


class Page:
    """One tab. Whatever it says or asks for is kept.

    Attributes:
        requests: Addresses that it asked for, the page's own included.
        complaints: Errors and warnings of its console, and what its script threw.
    """

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        target = browser.call("Target.createTarget", url="about:blank")
        self._session = browser.call(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )["sessionId"]
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._loaded = False
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call(
            "Network.emulateNetworkConditions",
            offline=True,
            latency=0,
            downloadThroughput=0,
            uploadThroughput=0,
        )

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the DevTools protocol, and return its answer."""
        return self._browser.call(
            method, session=self._session, listener=self._hear, **parameters
        )

    def _hear(self, event: dict[str, Any]) -> None:
        if event.get("sessionId") != self._session:
            return
        said = event["params"]
        match event["method"]:
            case "Network.requestWillBeSent":
                self.requests.append(said["request"]["url"])
            case "Runtime.exceptionThrown":
                thrown = said["exceptionDetails"]
                self.complaints.append(
                    thrown.get("exception", {}).get("description", thrown["text"])
                )
            case "Runtime.consoleAPICalled" if said["type"] in ("error", "warning"):
                self.complaints.append(str(said["args"]))
            case "Log.entryAdded" if said["entry"]["level"] in ("error", "warning"):
                self.complaints.append(said["entry"]["text"])
            case "Page.loadEventFired":
                self._loaded = True

    def open(self, file: Path) -> None:
        """Load a file, and wait until it is loaded."""
        self._loaded = False
        self.call("Page.navigate", url=file.as_uri())
        self._browser.listen(self._hear, until=lambda: self._loaded)

    def look(
        self,
        *,
        width: int = 1280,
        height: int = 900,
        scheme: str = "light",
        media: str = "screen",
        scripts: bool = True,
    ) -> None:
        """Set how the page is looked at; take scripts away before a page is opened."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.call(
            "Emulation.setEmulatedMedia",
            media=media,
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)

    def ask(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, as JSON has it."""
        answer = self.call(
            "Runtime.evaluate",
            expression=expression,
            returnByValue=True,
            awaitPromise=True,
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def click(self, selector: str) -> None:
        """Click the first line of the first element of a selector, as a mouse does."""
        place = json.dumps(selector)
        x, y = self.ask(
            f"(() => {{ const each = document.querySelector({place});"
            "each.scrollIntoView({block: 'center'});"
            "const [box] = each.getClientRects();"
            "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call(
                "Input.dispatchMouseEvent",
                type=kind,
                x=x,
                y=y,
                button="left",
                clickCount=1,
            )

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press a key on the element that has the focus."""
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                text=text if kind == "keyDown" else "",
            )

    def type(self, selector: str, text: str) -> None:
        """Write into a field as a keyboard does, after what is there."""
        self.click(selector)
        self.call("Input.insertText", text=text)

    def picture(self, *, whole: bool = False) -> bytes:
        """Return a PNG of what is seen, or of the whole page."""
        answer = self.call(
            "Page.captureScreenshot", format="png", captureBeyondViewport=whole
        )
        return base64.b64decode(answer["data"])


class Browser:
    """A running Chromium without a window, a profile or a network."""

    def __init__(self, profile: Path) -> None:
        commands, self._write = _high(os.pipe())
        self._read, answers = _high(os.pipe())
        nowhere = os.open(os.devnull, os.O_RDWR)
        arguments = [
            chromium(),
            "--headless",
            "--no-sandbox",  # it refuses to start with one as root
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            "--hide-scrollbars",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={profile}",
            "--remote-debugging-pipe",
            "about:blank",
        ]
        try:
            self._process = os.posix_spawn(
                arguments[0],
                arguments,
                {**os.environ, "HOME": str(profile)},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, nowhere, 0),
                    (os.POSIX_SPAWN_DUP2, nowhere, 1),
                    (os.POSIX_SPAWN_DUP2, nowhere, 2),
                    (os.POSIX_SPAWN_DUP2, commands, 3),
                    (os.POSIX_SPAWN_DUP2, answers, 4),
                ],
                setpgroup=0,
            )
        finally:
            for each in (nowhere, commands, answers):
                os.close(each)
        self._number = 0
        self._heard = b""

    def call(
        self, method: str, session: str = "", listener: Any = None, **parameters: Any
    ) -> dict[str, Any]:
        """Send a command, and return its answer; events go to the listener."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        if session:
            command["sessionId"] = session
        os.write(self._write, json.dumps(command).encode() + b"\0")
        for message in self._messages():
            if message.get("id") == self._number:
                assert "error" not in message, (method, message["error"])
                result: dict[str, Any] = message["result"]
                return result
            if listener and "method" in message:
                listener(message)
        raise AssertionError(f"Chromium ended before it answered {method}.")

    def listen(self, listener: Any, until: Any) -> None:
        """Give events to the listener until something is so."""
        if until():
            return
        for message in self._messages():
            if "method" in message:
                listener(message)
            if until():
                return
        raise AssertionError("Chromium ended before what was waited for.")

    def _messages(self) -> Iterator[dict[str, Any]]:
        deadline = time.monotonic() + _MAX_WAIT_SECONDS
        while True:
            while b"\0" in self._heard:
                first, _, self._heard = self._heard.partition(b"\0")
                yield json.loads(first)
            rest = deadline - time.monotonic()
            assert rest > 0 and select.select([self._read], [], [], rest)[0], (
                f"Chromium did not answer within {_MAX_WAIT_SECONDS:.0f} s."
            )
            more = os.read(self._read, 1 << 20)
            if not more:
                return
            self._heard += more

    def close(self) -> None:
        """End the program, with all of its processes."""
        os.close(self._write)
        os.close(self._read)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)


def _high(pipe: tuple[int, int]) -> tuple[int, int]:
    """Return a pipe above descriptor 4: making one into 3 must not close another."""
    moved = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 10) for each in pipe]
    for each in pipe:
        os.close(each)
    return moved[0], moved[1]


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Start Chromium, and end it."""
    with tempfile.TemporaryDirectory(
        prefix="penstock-chromium-", ignore_cleanup_errors=True
    ) as profile:
        running = Browser(Path(profile))
        try:
            yield running
        finally:
            running.close()
