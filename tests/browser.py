"""A real browser without a window, steered by the DevTools protocol over two pipes."""

from __future__ import annotations

import base64
import json
import os
import select
import struct
import subprocess
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

SECONDS = 60
FLAGS = (
    "--headless=new", "--no-sandbox", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage",
    "--hide-scrollbars", "--disable-background-networking", "--disable-component-update", "--disable-extensions", "--disable-sync",
)  # fmt: skip


class Browser:
    """Chromium with one tab. said: what its console, its log and uncaught errors have said. asked: what it has asked for."""

    def __init__(self, program: str, top: Path) -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        self._number, self._buffer = 0, b""
        theirs, self._writer = os.pipe()
        self._reader, answers = os.pipe()
        words = [program, *FLAGS, f"--user-data-dir={top}", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$0" "$@" 3<&{theirs} 4>&{answers}', *words], pass_fds=(theirs, answers), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "HOME": str(top)},
        )  # fmt: skip
        os.close(theirs)
        os.close(answers)
        self._session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(SECONDS)
        os.close(self._writer)
        os.close(self._reader)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._writer, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                found: dict[str, Any] = answer["result"]
                return found

    def _message(self) -> dict[str, Any]:
        """The next message; events are noted on the way."""
        deadline = time.monotonic() + SECONDS
        while b"\0" not in self._buffer:
            assert select.select([self._reader], [], [], max(0, deadline - time.monotonic()))[0], (
                "the browser says nothing"
            )
            data = os.read(self._reader, 1 << 20)
            assert data, "the browser is gone"
            self._buffer += data
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        what = message.get("params", {})
        if message.get("method") == "Network.requestWillBeSent":
            self.asked.append(what["request"]["url"][:200])
        if message.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.said.append(json.dumps(what)[:2000])
        return message

    def open(self, page: Path, width: int, scripts: bool = True, dark: bool = False) -> None:
        """Open a page in a window of that width and wait until it is drawn."""
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        self.call("Page.navigate", url=page.as_uri())
        while self.value("document.readyState + location.protocol") != "completefile:":
            time.sleep(0.02)

    def value(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def picture(self, selector: str = "html", scale: float = 1) -> bytes:
        """A part of the page as PNG."""
        box = self.value(
            f"(r => [r.left + scrollX, r.top + scrollY, r.width, r.height])(document.querySelector({selector!r}).getBoundingClientRect())"
        )
        clip = {**dict(zip(("x", "y", "width", "height"), box)), "scale": scale}
        return base64.b64decode(self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)["data"])


def colors(png: bytes) -> Counter[tuple[int, ...]]:
    """The colours of a picture, each with how many pixels have it."""
    assert png.startswith(b"\x89PNG\r\n")
    at, data, width, channels = 8, b"", 0, 0
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        chunk = png[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            width, _, depth, color, _, _, interlaced = struct.unpack(">IIBBBBB", chunk)
            assert (depth, interlaced) == (8, 0)
            channels = {2: 3, 6: 4}[color]
        data += chunk if kind == b"IDAT" else b""
        at += length + 12
    raw, stride = zlib.decompress(data), width * channels
    before, found = bytearray(stride), Counter[tuple[int, ...]]()
    for start in range(0, len(raw), stride + 1):
        line = _unfiltered(raw[start], bytearray(raw[start + 1 : start + 1 + stride]), before, channels)
        found.update(tuple(line[x : x + 3]) for x in range(0, stride, channels))
        before = line
    return found


def _unfiltered(kind: int, line: bytearray, above: bytearray, channels: int) -> bytearray:
    """A line of a PNG as it was before it was made smaller."""
    for x in range(len(line)):
        left, up = (line[x - channels] if x >= channels else 0), above[x]
        corner = above[x - channels] if x >= channels else 0
        guess = left + up - corner
        nearest = min((left, up, corner), key=lambda value: abs(guess - value))
        line[x] = (line[x] + (0, left, up, (left + up) // 2, nearest)[kind]) & 0xFF
    return line
