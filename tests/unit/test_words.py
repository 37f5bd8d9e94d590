"""The command line that people expect: the classic lines, the mode as the first word, long names, right guesses."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from xcat_avs import cli, modes
from xcat_avs.errors import UsageError, nearest
from xcat_avs.request import OPTIONS, Request

# The README of avs_image_mgr in its first form and in its last one, and its usage.
BOTH_AFTER_O, EACH_AFTER_ITS_OWN = "-p example.prod -o x86_64 -o SL6.3", "-p example.prod -a x86_64 -o SL6.3"
IMAGE: dict[str, Any] = {"profile": "example.prod", "osvers": "SL6.3", "osarch": "x86_64"}
CLASSIC: list[tuple[str, dict[str, Any]]] = [
    ('create {} -u larry -m "Initial build"', {"user": "larry", "message": "Initial build"}),
    ('create {} -u larry -m "Initial build" -b -n -f -s file:///repo', {
        "user": "larry", "message": "Initial build", "resume": True, "base": True, "finish": True, "store": "file:///repo"}),
    ("tag {}", {}),
    ("tag {} -u larry -r 12 -m why -s file:///repo", {"user": "larry", "revision": "12", "message": "why", "store": "file:///repo"}),
    ("list-tags {}", {}),
    ("list_tags {} -s file:///repo", {"store": "file:///repo"}),
    ("pack {} -t v1 -x example.test", {"tag": "v1", "masquerade": "example.test"}),
    ("pack {} -t v1", {"tag": "v1"}),
    ("diff {} -t v1:v2", {"tag": "v1:v2"}),
    ("diff {} -t v1:", {"tag": "v1:"}),
    ("diff {} -r 1:2", {"revision": "1:2"}),
    ("env {}", {}),
]  # fmt: skip


def request(line: str) -> Request:
    return cli.to_request(cli.parse(shlex.split(line)))


@pytest.mark.parametrize("image", [BOTH_AFTER_O, EACH_AFTER_ITS_OWN])
@pytest.mark.parametrize("before", ["", "-c "], ids=["avsimage", "avsimage -c"])
@pytest.mark.parametrize(("line", "wanted"), CLASSIC, ids=[line for line, _ in CLASSIC])
def test_a_classic_line(line: str, wanted: dict[str, Any], before: str, image: str) -> None:
    """`image_mgr.sh` is the one word to change."""
    found = request(before + line.format(image))
    assert found == Request(mode=line.split(maxsplit=1)[0], **IMAGE, **wanted)
    assert modes.refuse_unfit(found, modes.find(found.mode)) == []


@pytest.mark.parametrize("mode", [mode.name for mode in modes.table().values()])
def test_a_user_is_taken_by_every_mode(mode: str) -> None:
    found = request(f"{mode} example.prod -u larry -t v1")
    argument = "a" if mode in ("cat", "checkout") else ""
    wanted = Request(mode=mode, image="a", argument=argument, user="larry", tag="v1" if mode in ("pack", "boot") else "",
                     to="x" if mode == "copy" else "")  # fmt: skip
    said = modes.refuse_unfit(wanted, modes.find(mode))
    assert found.user == "larry"
    taken = mode in OPTIONS["user"].modes
    assert said == ([] if taken else [f"-u USER means nothing to mode {mode}, and is ignored"])


@pytest.mark.parametrize(
    ("line", "mode", "image"),
    [
        ("create example.prod", "create", "example.prod"),
        ("-V create example.prod", "create", "example.prod"),
        ("-m create create example.prod", "create", "example.prod"),
        ("create create", "create", "create"),
        ("-c create create", "create", "create"),
        ("create -c tag", "tag", "create"),
        ("-p create tag", "tag", ""),
        ("--mode=tag create", "tag", "create"),
        ("status", "status", ""),
        ("diff --files example.prod -t v1", "diff", "example.prod"),
        ("diff example.prod --files '/etc/*' -t v1", "diff", "example.prod"),
    ],
)
def test_the_mode_may_be_the_first_word(line: str, mode: str, image: str) -> None:
    """An image that is named like a mode is the word after it, or after -c."""
    found = request(line)
    assert (found.mode, found.image) == (mode, image)


def test_every_option_has_a_long_name() -> None:
    for name, option in OPTIONS.items():
        assert option.flags[-1].startswith("--"), name
        long = cli.parse(["env", *([option.flags[-1], "x"] if option.value else [option.flags[-1]])])
        assert long == cli.parse(["env", *([option.flags[0], "x"] if option.value else [option.flags[0]])])
        if option.value and name != "mode":
            assert cli.parse(["env", f"{option.flags[-1]}=x"]) == long


@pytest.mark.parametrize("line", ["env a -o SL6 -o SL7", "env a -o x86_64 -o aarch64", "env a -a x86_64 -o ppc64le"])
def test_two_words_of_one_kind_are_one_too_many(line: str) -> None:
    with pytest.raises(UsageError, match="is given 2 times"):
        request(line)
    assert request("env a -a x86_64 -o x86_64 -o SL6.3").osarch == "x86_64"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("env a --bogus", "there is no option --bogus"),
        ("env a --messsage x", "there is no option --messsage (did you mean --message?)"),
        ("env a --verbos", "there is no option --verbos (did you mean --verbose?)"),
        ("env a -z", "there is no option -z"),
        ("env a -t", "Option '-t' requires an argument"),
    ],
)
def test_a_guess_is_right_or_none(line: str, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        request(line)
    assert str(caught.value) == text
    assert cli.mode_of(shlex.split(line)) == modes.named("env")


@pytest.mark.parametrize(
    ("line", "mode"), [("-c tag a --x", "tag"), ("tag a --x", "tag"), ("--mode list_tags -z", "list-tags"), ("a", "")]
)
def test_the_mode_of_a_line_that_is_wrong(line: str, mode: str) -> None:
    found = cli.mode_of(shlex.split(line))
    assert (found.name if found else "") == mode


def test_names_of_another_case_are_the_nearest() -> None:
    assert nearest("EXAMPLE.PROD", ["example.prod", "example.test"]) == " (did you mean example.prod?)"
    assert nearest("Exmple.Prod", ["Example.PROD", "other"]) == " (did you mean Example.PROD?)"
    assert nearest("a", ["A", "a."]) == " (did you mean A?)"
    assert nearest("--bogus", ["--verbose", "--user"], 0.7) == ""


def test_avsimage_alone_says_in_ten_lines_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli._run([], cli.Call(Request())) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert max(map(len, lines)) < 80
    commands = [line.split() for line in lines if line.startswith("  avsimage ")]
    assert [words[1] for words in commands] == ["create", "tag", "pack", "rollback", "status"]
    assert all(words[1] in modes.table() for words in commands)
