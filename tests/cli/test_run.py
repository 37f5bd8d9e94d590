"""run, and the tests of recipes: programs of an image in an image that they cannot change. One image for all of them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from cli.conftest import PROD, Installation

pytestmark = pytest.mark.slow
BUSYBOX = "/usr/bin/busybox"
RECIPE = "install/custom/avs/images/example.prod/recipe.conf"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """An installation whose image has a shell, not built yet."""
    if os.geteuid() != 0 or not Path(BUSYBOX).exists():
        pytest.skip("not root, or not installed: busybox-static")
    made = Installation.make(tmp_path_factory.mktemp("run"))
    root = made.tree() / "rootimg"
    (root / "usr/bin").mkdir(parents=True)
    shutil.copy(BUSYBOX, root / "usr/bin/busybox")
    for name in ("sh", "cat", "touch", "grep"):
        (root / "usr/bin" / name).symlink_to("busybox")
    return made


def test_a_test_of_the_recipe_that_fails_fails_the_create(site: Installation) -> None:
    site.put(
        RECIPE,
        "[test]\ncommands =\n    touch /etc/made && grep -q node /etc/hostname\n    echo seen >&2; cat /etc/none\n",
    )
    failed = site.create("-m", "tested")
    assert failed.code == 1
    command = "echo seen >&2; cat /etc/none"
    assert f"{PROD}: test {command} failed: it failed with exit code 1; nothing was committed" in failed.error
    assert "seen" in failed.error
    assert f"log: {site.top}/logs/{PROD}/test.log" in failed.error
    assert site("-c", "log", "example.prod").out == "(no revisions found)\n"
    listed = json.loads(site("-c", "logs", "example.prod", "--json").out)["logs"]
    assert [(log["step"], log["state"]) for log in listed][-1] == ("test", "failed")
    # A shell in what they have left: it is not in the image.
    inside = site("-c", "shell", "example.prod", "--json", env={"SHELL": "/usr/bin/touch"})
    assert json.loads(inside.out)["kind"] == "test"
    assert not (site.top / "state/builds" / PROD / "tree/rootimg/etc/made").exists()


def test_a_resume_runs_the_tests_again(site: Installation) -> None:
    site.put(RECIPE, "[test]\ncommands = touch /etc/made && grep -q node /etc/hostname\n")
    done = site("-c", "create", "example.prod", "--from", str(site.top / "source"), "-b")
    assert done.code == 0, done.err
    assert "\ntest:\n  1 command of the recipe passed in 0s\n" in done.out
    assert "done before, not repeated" in done.err
    assert site("-c", "cat", "example.prod", "build_info/inputs/recipe.conf").out.endswith(
        "commands =\n    touch /etc/made && grep -q node /etc/hostname\n"
    )
    assert "/etc/made" not in site("-c", "files", "example.prod").out
    assert sorted(os.listdir(site.top / "state/builds" / PROD)) == ["results", "tree"]
    assert site("-c", "tag", "example.prod", "-t", "v1").code == 0


def test_run_is_the_command(site: Installation) -> None:
    words = ["-c", "run", "example.prod", "-t", "v1", "--"]
    said = site(*words, "sh", "-c", 'echo "$HOME" "$@"; touch /etc/new; exit 7', "sh", "--sign", "-t", "a b", "--")
    assert (said.code, said.out) == (7, "/root --sign -t a b --\n")
    assert site(*words, "cat", "/etc/new").code == 1, "what it has changed is gone"
    assert site(*words, "nothing-of-that-name").code == 127
    none = site(*words, "")
    assert (none.code, "shell" in none.err) == (127, False), (
        "an empty name is that of no program, and asks for no shell"
    )
    ignored = re.search(r"^SigIgn:\s*(\w+)$", site(*words, "cat", "/proc/self/status").out, re.MULTILINE)
    assert ignored is not None
    pipe, size = (1 << number - 1 for number in (signal.SIGPIPE, signal.SIGXFSZ))
    assert not int(ignored.group(1), 16) & (pipe | size), "SIGPIPE ends it, as in a shell"
    assert site(*words, "sh", "-c", "kill -TERM $$").code == 128 + 15
    told = site("-c", "run", "example.prod", "-r", "2", "--json", "--", "sh", "-c", "echo out")
    assert json.loads(told.out) == {
        "osimage": PROD,
        "tag": "",
        "revision": 2,
        "command": ["sh", "-c", "echo out"],
        "exit": 0,
    }
    assert told.err == "out\n"
    assert site("-c", "verify", "example.prod", "-t", "v1").code == 0
    assert os.listdir(site.top / "state/runs") == []


def test_run_without_a_command_is_a_shell(site: Installation) -> None:
    done = site("run", "example.prod", "-t", "v1", "--", env={"SHELL": "/usr/bin/cat"})  # which the image has
    assert done.code == 0
    assert done.err.startswith(f"{PROD} tag v1: a shell in a copy of it; what is changed here goes with the shell\n")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (
            ["-c", "run", "example.prod", "-t", "v1", "cat", "/etc/hostname"],
            "unexpected argument 'cat' or '/etc/hostname'",
        ),
        (["-c", "run", "example.prod", "-t", "v1", "-r", "2"], "give -t TAG or -r REV, not both"),
        (["-c", "tag", "example.prod", "--", "x"], "unexpected argument 'x'"),
        (["-c", "run", "example.prod", "-t", "v2", "--", "cat"], "has no tag 'v2'"),
    ],
)
def test_what_run_does_not_take(words: list[str], error: str, site: Installation) -> None:
    assert error in site(*words).error


def test_what_is_no_setting_of_the_tests(site: Installation) -> None:
    site.put(RECIPE, "[test]\ncommand = true\n")
    assert (
        "unknown setting 'command' in [test] (did you mean commands?); there is commands"
        in site.here("-c", "steps", "example.prod").error
    )
