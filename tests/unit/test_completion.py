"""What a shell offers after TAB: of the table of options, and of names that xCAT and the store have."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from xcat_avs import modes, settings
from xcat_avs.modes import completion
from xcat_avs.modes.completion import CHOICES, DIRECTORIES, FILES, WORDS
from xcat_avs.request import OPTIONS
from xcat_avs.site import names
from xcat_avs.system import remembered

PROD, OLD, TEST = "debian12-x86_64-netboot-example.prod", "SL6.3-x86_64-netboot-example.prod", "my.test"
IMAGES = [
    (PROD, "debian12", "x86_64", "example.prod"),
    (OLD, "SL6.3", "x86_64", "example.prod"),
    (TEST, "rocky9.4", "aarch64", "test"),
    ("$(reboot)-x86_64-netboot-x", "a b", "x86_64", "`id`"),
]
TAGS = ["2026-11-23-ssh", "v1"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "avsimage"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An installation that has these images, each with these tags; what it was asked for."""
    found: list[str] = []

    def answers(what: str, answer: object) -> Callable[..., object]:
        def answered(*_: object) -> object:
            found.append(what)
            return answer

        return answered

    monkeypatch.setattr(names, "osimages", answers("osimages", IMAGES))
    monkeypatch.setattr(names, "tags", answers("tags", TAGS))
    monkeypatch.setattr(names, "installdir", answers("installdir", "/install"))
    monkeypatch.setattr(names, "asks_for_installdir", lambda: False)
    return found


def answer(line: str, shell: str = "zsh") -> tuple[str, list[str]]:
    """What fits the last word of a line: the kind, and the words."""
    words = line.split(" ")
    said = list[str]()
    assert completion.respond([shell, str(len(words) - 1), *words], said.append) == 0
    assert len(said) == 1
    assert said[0].endswith("\n\0")
    kind, *found = said[0][:-2].split("\n")
    return kind, [word.split("\t")[0] for word in found]


def fits(line: str, shell: str = "zsh") -> list[str]:
    kind, found = answer(line, shell)
    assert kind == WORDS
    return found


def test_modes() -> None:
    assert fits("") == fits("-c ") == fits("--mode ") == list(modes.MODES)
    assert fits("cre") == fits("-V -c cre") == ["create"]
    assert fits("--mode=cre") == ["--mode=create"]
    assert fits("--mode = cre", "bash") == ["create"]  # which has made three words of it
    assert fits("--mode =", "bash") == list(modes.MODES)
    assert fits("nosuch ") == fits("nosuch x ") == []


@pytest.mark.parametrize("mode", modes.MODES)
def test_the_options_of_a_mode_are_those_of_the_table(mode: str) -> None:
    fit = [option for name, option in OPTIONS.items() if not option.modes or mode in option.modes]
    expected = {flag for option in fit for flag in option.flags if flag.startswith("--")} - {"--mode"}
    assert set(fits(f"{mode} example.prod --")) == set(fits(f"-c {mode} --")) == expected


def test_what_is_given_is_not_offered_again() -> None:
    assert "--finish" in fits("create x --f")
    assert "--finish" not in fits("create x -f --f")
    assert "--message" not in fits("create x --message=y --m")
    assert "--mode" not in fits("create x --m")
    assert fits("create x -m") == ["-m"]
    assert fits("create x -x") == ["-x"]
    assert "--live" not in fits("create x -")


def test_options_have_their_help() -> None:
    said = list[str]()
    completion.respond(["zsh", "1", "status", "--li"], said.append)
    assert said == ["words\n--live\task the nodes, by xdsh, what they run\n\0"]


def test_what_is_put_into_the_scripts() -> None:
    said = list[str]()
    assert completion.respond(["--words"], said.append) == 0
    lines = dict(line.split("=", 1) for line in said[0].splitlines() if "=" in line)
    assert lines["_avsimage_modes"] == f"'{' '.join(modes.MODES)}'"
    for mode in modes.MODES:
        assert lines[f"_avsimage_options[{mode}]"].strip("'").split() == fits(f"-c {mode} --")
    assert lines["_avsimage_options[-]"].strip("'").split() == fits("--")


def test_osimages_by_profile_and_by_name(asked: list[str]) -> None:
    assert fits("-c create ") == ["example.prod", "test", OLD, PROD, TEST]
    assert fits("create SL") == [OLD]
    assert fits("pack -x ex") == ["example.prod"]
    assert fits("pack x -p ex") == fits("pack -p ex") == ["example.prod"]
    assert fits("show -o ") == ["SL6.3", "debian12", "rocky9.4"]
    assert fits("show -a ") == ["aarch64", "x86_64"]
    assert asked == ["osimages"]


def test_tags_of_the_image(asked: list[str]) -> None:
    assert fits(f"pack {PROD} -t ") == TAGS
    assert fits(f"-c pack -t v -p {TEST}") == []  # the cursor is at the end, where that name is complete
    assert fits(f"show {PROD} --tag=v") == ["--tag=v1"]
    assert fits(f"show {PROD} --tag = v", "bash") == ["v1"]
    assert fits("pack example.prod -t ") == []  # which of the two is meant?
    assert fits("pack example.prod -o SL6.3 -t ") == TAGS
    assert fits("pack nosuch -t ") == fits("pack -t ") == []
    assert fits(f"diff {PROD} -t v1:2") == ["v1:2026-11-23-ssh"]
    assert fits(f"diff {PROD} -t v1 : 2", "bash") == ["2026-11-23-ssh"]
    assert fits(f"diff {PROD} -t v1 :", "bash") == TAGS


def test_quoted_words_are_what_bash_makes_of_them(asked: list[str]) -> None:
    assert fits(f"pack '{PROD}' -t \"v", "bash") == ["v1"]
    assert fits("show --method 'sq", "bash") == ["squashfs"]
    assert fits(f'"pack" {PROD} --tag="v', "bash") == ["--tag=v1"]
    assert completion.unquoted("'a b'\\''c") == "a b'c"


def test_the_word_is_in_the_middle(asked: list[str]) -> None:
    said = list[str]()
    completion.respond(["bash", "2", "pack", "-t", "v", PROD], said.append)
    assert said == ["words\nv1\t\n\0"]


def test_paths_and_the_few_values() -> None:
    assert answer("create x --from ") == answer("create x --from=/v") == answer("checkout x ") == (DIRECTORIES, [])
    assert answer("create x -- l") == (FILES, [])
    assert answer("cat x ") == answer("create x -m ") == (WORDS, [])
    assert fits("pack x --method ") == ["auto", "cpio", "tar", "squashfs"]
    assert fits("pack x --compress=z") == ["--compress=zstd"]
    for value, name in (("METHOD", "method"), ("NAME", "compress")):
        assert CHOICES[value] == settings.FIELDS["pack", name].metadata["choices"]


def test_every_value_is_known_or_free() -> None:
    """A value of a new kind is one to think of: FREE has those that nothing can be offered for."""
    free = {"REV", "MESSAGE", "USER", "N", "DAYS", "PATTERN", "PATH", "URL", "[KEY]"}
    known = {"MODE", "TAG", "NAMES", "IMAGE", "PROFILE", "OSVERS", "ARCH", *CHOICES, *completion.PATHS}
    assert {option.value for option in OPTIONS.values() if option.value} <= free | known


def test_names_are_asked_for_once_in_ten_seconds(asked: list[str], cache: Path) -> None:
    assert fits("create te") == fits("create te") == ["test"]
    assert asked == ["osimages"]
    (path,) = cache.glob("osimages-*")
    os.utime(path, (time.time() - 11,) * 2)
    assert fits("create te") == ["test"]
    assert asked == ["osimages"] * 2
    assert path.stat().st_mode & 0o077 == 0 or cache.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("gone", [False, True])
def test_what_takes_long_comes_with_the_next_question(gone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the shell has not waited for the first answer."""
    told = list[float]()

    def slow() -> object:
        time.sleep(completion.PATIENCE + 0.1)
        assert told
        return IMAGES

    def say(text: str) -> None:
        told.append(time.monotonic())
        assert text == "words\n\0"
        if gone:
            raise BrokenPipeError

    monkeypatch.setattr(names, "osimages", slow)
    start = time.monotonic()
    assert completion.respond(["zsh", "1", "create", "te"], say) == 0
    assert told[0] - start < completion.PATIENCE + 0.1
    assert fits("create te") == ["test"]


def test_one_question_at_a_time(asked: list[str]) -> None:
    with completion._images().turn() as mine:
        assert mine
        assert fits("create te") == []
    assert asked == []
    assert fits("create te") == ["test"]


def test_it_is_silent_on_failure(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], cache: Path
) -> None:
    """And does not try again at every key. What was known stays."""
    calls = list[int]()

    def fail() -> object:
        calls.append(1)
        raise OSError("xcatd is down")

    monkeypatch.setattr(names, "osimages", fail)
    assert fits("create te") == fits("create te") == []
    assert len(calls) == 1
    (path,) = cache.glob("osimages-*")
    path.write_text(json.dumps(IMAGES))
    os.utime(path, (time.time() - 11,) * 2)
    assert fits("create te") == fits("create te") == ["test"]
    assert len(calls) == 2
    path.write_text("{")
    assert fits("create te") == []
    assert completion.respond([], print) == completion.respond(["bash", "x"], print) == 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(os.geteuid() != 0, reason="as root only")
def test_root_writes_nothing_for_the_user_whose_environment_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pwd.getpwuid", lambda _: type("Root", (), {"pw_dir": str(tmp_path / "root")}))
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, 65534, 65534)
    monkeypatch.setenv("XDG_CACHE_HOME", str(theirs))
    assert remembered.directory() == tmp_path / "root/.cache/avsimage"
    os.chown(tmp_path / "root/.cache/avsimage", 65534, 65534)
    with pytest.raises(PermissionError):
        remembered.directory()
