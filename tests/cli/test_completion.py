"""Completion in real interactive shells, on a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.node import ManagementNode
from harness import TOP

from cli.conftest import PROD, Installation
from xcat_avs import settings
from xcat_avs.modes import completion

SCRIPTS = TOP / "share/xcat/avs/completion"
PROMPT = "ready> "
LATE = 7  # seconds: more than the shell waits for an answer here
START = {
    "bash": (["bash", "--noprofile", "--norc", "-i"], f"PS1='{PROMPT}'; bind 'set bell-style none'; . SCRIPTS/avsimage.bash"),
    "zsh": (["zsh", "-f", "-i"], f"PS1='{PROMPT}'; fpath=(SCRIPTS $fpath); autoload -U compinit; compinit -u -D"),
}  # fmt: skip


class Shell:
    """An interactive shell, and what is on its terminal."""

    def __init__(self, name: str, env: dict[str, str], scripts: Path) -> None:
        argv, setup = START[name]
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.chdir("/")
            os.execvpe(argv[0], argv, env)
        self.run(setup.replace("SCRIPTS", str(scripts)))

    def run(self, line: str) -> str:
        self.send(f"{line}\r")
        # The prompt is in the first line as well, in words.
        return self.until(rf"\n(.*\n)?.*{PROMPT}$")

    def send(self, keys: str) -> None:
        os.write(self.terminal, keys.encode())

    def until(self, pattern: str, seconds: float = 10) -> str:
        """What the terminal got, once it matches. Fails after some seconds."""
        found, end = "", time.monotonic() + seconds
        while not re.search(pattern, found):
            ready, _, _ = select.select([self.terminal], [], [], max(0, end - time.monotonic()))
            assert ready, f"no {pattern!r} in {found!r}"
            raw = os.read(self.terminal, 65536).decode("utf-8", "replace")
            found += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|[\x07\r]", "", raw)
        return found

    def typed(self, keys: str, pattern: str) -> float:
        """Type keys and TAB until the terminal gets what is expected; returns the seconds that the last TAB took.

        What comes too late, on a busy machine, is known the next time.
        """
        for _ in range(4):
            self.send(keys)
            self.until(re.escape(keys[-4:]) + "$")
            start = time.monotonic()
            self.send("\t")
            found = self.got(pattern, LATE)
            took = time.monotonic() - start
            self.clear()
            if found:
                return took
        pytest.fail(f"{keys!r} was not completed")

    def got(self, pattern: str, seconds: float) -> bool:
        try:
            self.until(pattern, seconds)
        except AssertionError:
            return False
        return True

    def clear(self) -> None:
        """Give the line up."""
        self.send("\x15")
        self.run("echo")

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.terminal)


def started(name: str, env: dict[str, str], scripts: Path = SCRIPTS) -> Iterator[Shell]:
    if not shutil.which(name):
        pytest.skip(f"no {name}")
    if scripts == SCRIPTS:
        env = {**env, "PATH": f"{Path(sys.executable).parent}:{env['PATH']}"}
    found = Shell(name, env, scripts)
    yield found
    found.close()


@pytest.fixture(scope="module", params=["bash", "zsh"])
def shell(
    request: pytest.FixtureRequest, built_once: Installation, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shell]:
    # Other tests make the machine busy, and an answer that is late would be no answer.
    env = {"TERM": "dumb", "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")), "AVS_COMPLETION_SECONDS": "5"}
    yield from started(request.param, built_once.environment(env))


@pytest.mark.slow
def test_a_line_is_completed_word_by_word(shell: Shell) -> None:
    took = {
        keys: shell.typed(keys, pattern)
        for keys, pattern in {
            "avsimage che": r"^ck",
            "avsimage roll": r"^back ",
            "avsimage -c create --fin": r"^ish ",
            "avsimage pack x --compress=z": r"^std ",
            "avsimage pack example.p": r"^rod ",
            "avsimage show debian12-x86_64-netboot-example.p": r"^rod ",
            f"avsimage show {PROD} -t v": r"^1 ",
            f"avsimage diff {PROD} -t v1:v": r"^1 ",
            "avsimage create x --from /usr/inc": r"^lude/",
        }.items()
    }
    print({keys: f"{seconds:.2f}" for keys, seconds in took.items()})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bash", "zsh"])
def test_a_machine_too_busy_to_answer(name: str, tmp_path: Path) -> None:
    """Modes and options are in the scripts that are installed."""
    said = list[str]()
    completion.respond(["--words"], said.append)
    for script in SCRIPTS.iterdir():
        first, rest = script.read_text().split("\n", 1)
        (tmp_path / script.name).write_text(f"{first}\n{said[0]}{rest}")
    (tmp_path / "avsimage").write_text("#!/bin/sh\nsleep 2\n")
    (tmp_path / "avsimage").chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TERM": "dumb", "HOME": str(tmp_path)}
    for shell in started(name, env, tmp_path):
        shell.typed("avsimage che", r"^ck")
        shell.typed("avsimage -c create x --fin", r"^ish ")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bash", "zsh"])
def test_xcat_that_takes_its_time_holds_nobody_up(name: str, tmp_path: Path) -> None:
    """The shell goes on, and lsdef was run once however often TAB was pressed; its answer comes later."""
    node = ManagementNode(tmp_path / "node")
    node.image()
    node.knobs["lsdef"] = {"seconds": 1}
    node.save()
    env = {**node.environment, "XDG_CACHE_HOME": str(tmp_path)}
    for shell in started(name, env):
        shell.send("avsimage -c create exa")
        shell.until("exa$")
        took = []
        for key in "123":
            start = time.monotonic()
            shell.send(f"\t{key}\x7f")
            shell.until(key)
            took.append(time.monotonic() - start)
        print([f"{seconds:.2f}" for seconds in took])
        assert max(took) < 1
        shell.clear()
        shell.run("AVS_COMPLETION_SECONDS=5")
        shell.typed("avsimage -c create exa", r"^mple\.prod ")
        calls = [json.loads(line) for line in (node.fake / "calls.jsonl").read_text().splitlines()]
        assert [call["argv"][:2] for call in calls] == [["-t", "osimage"]]


@pytest.mark.slow
def test_tags_where_the_site_says_which_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """INSTALLDIR is needed for that, which is another table: xCAT is asked once with each question, and no more."""
    node = ManagementNode(tmp_path / "node")
    node.image()
    url = f"file://{tmp_path}/repo"
    (node.installdir / "custom/avs").mkdir(parents=True)
    (node.installdir / "custom/avs/avs.conf").write_text(f"[paths]\nstore = {url}\n")
    subprocess.run(["svnadmin", "create", str(tmp_path / "repo")], check=True)
    made = f"{url}/netboot/rocky9.4/x86_64/example.prod/tags/v1"
    subprocess.run(["svn", "mkdir", "-q", "--parents", "-m", "a tag", made], check=True)
    for name, value in {**node.environment, "AVS_CONF": "", "XDG_CACHE_HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(settings, "ETC_CONF", tmp_path / "none")
    asked, said = list[int](), list[str]()
    for _ in range(3):
        assert completion.respond(["bash", "3", "show", "example.prod", "-t", "v"], said.append) == 0
        asked.append(len((node.fake / "calls.jsonl").read_text().splitlines()))
    assert asked == [1, 2, 2]
    assert said[0] == "words\n\0"
    assert said[2] == "words\nv1\t\n\0"
