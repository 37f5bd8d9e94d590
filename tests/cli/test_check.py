"""check, shell and logs: what is asked when something does not work."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import others
import pytest
from harness import TOP

from xcat_avs.system import checks as machine

from .conftest import PROD, Answer, Installation

GOLDEN = Path(__file__).resolve().parent / "golden_check"
NOBODY = others.by_uid(65534)
STEPS = "[recipe]\nsteps = prepare_image_directory, generate_image, breaks, cleanup\n"
BREAKS = '#!/bin/sh\necho "the reason is $AVS_OPT_WHY"\nexit 3\n'


def findings(answer: Answer) -> dict[str, list[dict[str, object]]]:
    """Result -> the findings of a document."""
    found: dict[str, list[dict[str, object]]] = {"[ OK ]": [], "[WARN]": [], "[FAIL]": []}
    for item in json.loads(answer.out)["findings"]:
        found[item["result"]].append(item)
    return found


def failures(answer: Answer) -> list[str]:
    """The lines that fail, each with its fix."""
    assert "Traceback" not in answer.err, answer.err
    lines = re.sub(r"\n +", " ", answer.out).split("\n")
    return [line for line in lines if line.startswith("[FAIL]")]


# check


def test_a_new_installation_is_well(avs: Installation) -> None:
    answer = avs("-c", "check", "example.prod")
    assert (answer.code, failures(answer), answer.err) == (0, [], "")
    for words in ("fsvs 1", "sh 2", f"[paths] state = {avs.top}/state   ({avs.conf})", f"pkglist: {avs.install}",
                  "no store yet", "free for state", "recipe: prepare_image_directory, generate_image", "debian 12"):  # fmt: skip
        assert words in answer.out, words
    assert not (avs.top / "state").exists(), "nothing is made by looking"


def test_check_needs_no_image(avs: Installation) -> None:
    answer = avs("-c", "check", "--json")
    found = findings(answer)
    assert (answer.code, found["[FAIL]"], json.loads(answer.out)["well"]) == (0, [], True)
    areas = {item["area"] for items in found.values() for item in items}
    assert areas == {"machine", "settings", "paths", "definitions", "store", "space", "left-overs", "clock"}


def test_all_that_is_wrong_in_the_settings_is_told(avs: Installation) -> None:
    avs.setting("xcat", "use = maybe")
    avs.setting("paths", "store = nonsense")
    avs.setting("paths", "stor = x")
    avs.setting("pathss", "state = y")
    answer = avs("-c", "check", "example.prod")
    assert answer.code == 1
    said = "\n".join(failures(answer))
    for words in ("[xcat] use is 'maybe'", "unknown setting 'stor' in [paths] (did you mean store?)",
                  "unknown section [pathss]", "'nonsense' is no URL", "[xcat] definitions"):  # fmt: skip
        assert words in said or words in answer.out, words
    avs.conf.write_text("rubbish")
    assert any("is not an ini file" in line for line in failures(avs("-c", "check")))


def test_what_an_installation_lacks_names_check(avs: Installation) -> None:
    """No definitions, no store, no root, a bad file, others who may write: each error says where all of it is told."""
    hint = "`avsimage -c check example.prod` looks at all that is needed"
    assert hint in avs("-c", "list-tags", "example.prod").err
    assert hint in avs("-c", "create", "example.prod", prefix=NOBODY).err
    avs.conf.chmod(0o666)
    assert hint in avs("-c", "env", "example.prod").err
    avs.conf.chmod(0o644)
    avs.setting("xcat", "use = yes")
    answer = avs("-c", "env", "example.prod", "--json", env={"XCATROOT": str(avs.top)})
    assert (json.loads(answer.out)["next"], hint in answer.err) == ("avsimage -c check example.prod", True)
    avs.setting("xcat", "use = no")
    avs.setting("xcat", "definitions =")
    assert "`avsimage -c check` looks at all that is needed" in avs("-c", "status").err
    assert "looks at all" not in avs("-c", "status", "--nonsense").err


def test_files_that_a_definition_names(avs: Installation) -> None:
    answer = avs("-c", "check", "lost")
    assert answer.code == 1
    line = next(line for line in failures(answer) if "missing.pkglist" in line)
    assert "fix: put the file there, or name another: pkglist=FILE in" in line
    (avs.install / "custom/example.pkglist").chmod(0o666)
    line = next(line for line in failures(avs("-c", "check", "example.prod")) if "example.pkglist" in line)
    assert f"fix: chmod go-w {avs.install}/custom/example.pkglist" in line
    assert any("no osimage 'exmple.prod'" in line for line in failures(avs("-c", "check", "exmple.prod")))


def test_each_failure_is_told_once_with_what_to_do(avs: Installation) -> None:
    avs.conf.chmod(0o666)
    assert any(f"fix: chmod go-w {avs.conf}" in line for line in failures(avs("-c", "check")))
    avs.conf.chmod(0o644)
    (avs.top / "logs").mkdir(mode=0o755)
    assert "can be read by others" not in avs("-c", "check").out, "what is in it is for root only"
    for words in (
        "sign keyring = TOP/none",
        "xcat definitions = TOP/none",
        "xcat definitions =",
        "xcat definitions = TOP/avs.conf",
    ):
        section, _, line = words.replace("TOP", str(avs.top)).partition(" ")
        avs.setting(section, line)
        found = failures(avs("-c", "check"))
        assert all("fix: " in line for line in found), found
        assert len(found) == (1 if section == "sign" else 2), found
    avs.setting("xcat", f"definitions = {avs.top}/images.stanza")
    (avs.top / "repo/db").mkdir(parents=True)
    (avs.top / "repo/db/uuid").write_text("0-0\n")
    assert any("cannot be used" in line for line in failures(avs("-c", "check"))), "it has to answer"


def test_state_that_cannot_be_written(avs: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(avs.top))
    (found, *_) = machine.own_places({"state": avs.top / "state"}, (), ())
    assert (found.result, found.fix.partition(" /")[0]) == ("[FAIL]", "mount -o remount,rw")


@pytest.fixture(scope="module")
def few_programs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH without Subversion, FSVS and mmdebstrap."""
    top = tmp_path_factory.mktemp("bin")
    for name in ("sh", "cp", "tar", "gzip", "cpio", "env", "chroot", "apt-get", "apt-config"):
        if shutil.which(name):
            (top / name).symlink_to(shutil.which(name) or "")
    return str(top)


def test_all_missing_programs_at_once(avs: Installation, few_programs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # command.environment adds the sbin directories, where none of these are.
    answer = avs("-c", "check", "example.prod", env={"PATH": few_programs})
    line = next(line for line in failures(answer) if "not installed" in line)
    for name in ("fsvs", "svn", "svnmucc", "svnadmin", "mmdebstrap"):
        assert f"{name}: " in line
    assert "fix: apt-get install fsvs subversion mmdebstrap" in line
    error = avs("-c", "create", "example.prod", "--from", str(avs.tree()), "-f", env={"PATH": few_programs}).error
    assert (
        "the programs fsvs, svn, svnmucc, svnadmin are not installed; they are in the packages fsvs, subversion"
        in error
    )
    assert "avsimage -c check example.prod" in error


def test_check_by_somebody_else(avs: Installation) -> None:
    for name in ("state/builds", "logs", "repo"):
        (avs.top / name).mkdir(parents=True, mode=0o700)
    (avs.top / "state").chmod(0o700)
    others.let_in(avs.top)
    answer = avs("-c", "check", "example.prod", prefix=NOBODY)
    assert failures(answer) == []
    assert answer.code == 0
    assert "[WARN] not root" in answer.out
    assert "sudo avsimage -c check" in answer.out


def test_left_overs_and_rights(avs: Installation) -> None:
    (avs.top / "state/builds/gone").mkdir(parents=True)
    (avs.top / "state/fsvs/tmpx").mkdir(parents=True)
    (avs.top / "state").chmod(0o755)
    answer = avs("-c", "check")
    assert answer.code == 0
    assert f"fix: rm -r {avs.top}/state/builds/gone" in answer.out
    assert f"fix: rm -r {avs.top}/state/fsvs/tmpx" in answer.out
    assert f"fix: chmod go-rwx {avs.top}/state" in answer.out
    avs.setting("paths", f"state = {avs.install}/state")
    assert any("is served to anyone" in line for line in failures(avs("-c", "check")))


@pytest.mark.slow
def test_check_of_what_was_built(built: Installation) -> None:
    answer = built("-c", "check", "example.prod")
    assert (answer.code, failures(answer)) == (0, []), answer.out
    assert "by the last build of" in answer.out
    assert "the whole store was never verified" in answer.out
    assert f"fix: avsimage -c verify {PROD} --deep" in answer.out
    assert built("-c", "verify", "example.prod", "--deep").code == 0
    assert "the whole store was verified on 20" in built("-c", "check").out
    (built.top / "repo").rename(built.top / "elsewhere")
    line = next(line for line in failures(built("-c", "check")) if "there was one" in line)
    assert "fix: mount its disk" in line


# A build that fails: its logs, and a shell in it.


@pytest.fixture(scope="module")
def failed_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Installation, Answer]:
    """An installation with a build that failed. Its image has a shell."""
    avs = Installation.make(tmp_path_factory.mktemp("failed"))
    source = avs.tree() / "rootimg"
    (source / "bin").unlink()
    for name in ("sh", "cat", "ls"):
        _with_libraries(Path(shutil.which(name) or ""), source)
    avs.put(
        "install/custom/avs/procedures/common/breaks.sh",
        f"#!/bin/sh\n# OPTION why=none  what the reason is\n{BREAKS}",
        0o755,
    )
    avs.put("install/custom/avs/recipes/default.conf", STEPS)
    return avs, avs.create("--json")


def _with_libraries(program: Path, root: Path) -> None:
    said = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True).stdout
    for name in [str(program), *re.findall(r"(/\S+) \(", said)]:
        target = root / name.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(os.path.realpath(name), target)
    (root / "bin").mkdir(exist_ok=True)
    if not (root / "bin" / program.name).exists():
        shutil.copy(os.path.realpath(program), root / "bin" / program.name)


@pytest.fixture
def failed(failed_once: tuple[Installation, Answer]) -> Installation:
    return failed_once[0]


def shell(avs: Installation, commands: str, *argv: str) -> Answer:
    """The mode shell with commands on its standard input."""
    line = [sys.executable, "-m", "xcat_avs", "-c", "shell", "example.prod", *argv]
    done = subprocess.run(
        line, input=commands.encode(), capture_output=True, env=avs.environment(), cwd="/", timeout=60, check=False
    )
    return Answer(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.mark.slow
def test_the_error_of_a_step_names_its_shell(failed_once: tuple[Installation, Answer]) -> None:
    answer = failed_once[1]
    assert f"`avsimage -c shell {PROD}` is a shell where it failed" in answer.error
    assert json.loads(answer.out)["failed"]["shell"] == f"avsimage -c shell {PROD}"


@pytest.mark.slow
def test_a_shell_where_it_failed(failed: Installation) -> None:
    answer = shell(
        failed,
        "echo $AVS_PROFILE $AVS_ROOT $AVS_OSVERS $PWD; cat /etc/hostname; ls /proc/self/stat; echo seen >/etc/mark\n",
    )
    assert answer.code == 0, answer.err
    assert (
        answer.out
        == f"example.prod / debian12 /\nnode\n/proc/self/stat\nNext: avsimage -c create example.prod --from {failed.top}/source -b\n"
    )
    assert (
        f"{PROD}: step breaks failed; a shell in the image. Its log: {failed.top}/logs/{PROD}/breaks.log" in answer.err
    )
    root = failed.top / f"state/builds/{PROD}/tree/rootimg"
    assert (root / "etc/mark").read_text() == "seen\n"
    assert not (root / "proc").exists(), "the mount points that it needed are gone"
    assert str(failed.top) not in Path("/proc/self/mounts").read_text()
    (root / "etc/mark").unlink()


@pytest.mark.slow
def test_a_shell_with_json(failed: Installation) -> None:
    answer = shell(failed, "echo said; exit 7\n", "--json")
    document = json.loads(answer.out)
    assert (answer.code, document["exit"], document["name"], document["kind"]) == (0, 7, "breaks", "step")
    assert document["next"] == f"avsimage -c create example.prod --from {failed.top}/source -b"
    assert "said\n" in answer.err


@pytest.mark.slow
def test_an_image_without_a_shell(failed: Installation) -> None:
    """What a generator that failed has left."""
    root = failed.top / f"state/builds/{PROD}/tree/rootimg"
    (root / "bin/sh").rename(root / "bin/no-sh")
    try:
        answer = shell(failed, "echo $AVS_ROOT; pwd\n")
    finally:
        (root / "bin/no-sh").rename(root / "bin/sh")
    assert answer.code == 0, answer.err
    assert answer.out.startswith(f"{root}\n{root}\n")
    assert "a shell of this machine" in answer.err


@pytest.mark.slow
def test_a_shell_and_a_build_exclude_each_other(failed: Installation) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "xcat_avs", "-c", "shell", "example.prod"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=failed.environment(), cwd="/",
    ) as first:  # fmt: skip
        assert first.stdin
        assert first.stdout
        first.stdin.write(b"echo here\n")
        first.stdin.flush()
        assert first.stdout.readline() == b"here\n"
        for answer in (failed.create("-b"), shell(failed, "echo no\n")):
            assert answer.code == 1
            assert "is being built by" in answer.error
        first.stdin.close()
        assert first.wait(20) == 0


@pytest.mark.slow
def test_a_shell_on_a_terminal(failed: Installation) -> None:
    """Ctrl-C is the shell's, and what runs in it; we wait for its end."""
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            os.execve(
                sys.executable, [sys.executable, "-m", "xcat_avs", "-c", "shell", "example.prod"], failed.environment()
            )
        finally:
            os._exit(127)
    said = b""

    def until(words: bytes) -> None:
        nonlocal said
        deadline = time.monotonic() + 20
        while words not in said:
            assert time.monotonic() < deadline, said
            if select.select([terminal], [], [], 0.1)[0]:
                said += os.read(terminal, 4096)

    until(b"a shell in the image")
    os.write(terminal, b"echo begin$((1+1)); cat\n")
    until(b"begin2")
    time.sleep(0.2)
    os.write(terminal, b"\x03")
    until(b"^C\r\n# ")  # the terminal forgets what was typed before
    os.write(terminal, b"echo still$((2+2))\n")
    until(b"still4")
    os.write(terminal, b"exit\n")
    until(b"Next: avsimage -c create")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(terminal)
    assert b"rror" not in said


@pytest.mark.slow
def test_a_shell_in_an_add_on_that_failed(failing: Installation) -> None:
    failing.put("install/custom/avs/procedures/common/breaks.sh", "#!/bin/sh\n", 0o755)
    failing.put(
        "install/custom/avs/addons/common/extra.sh",
        "#!/bin/sh\nmkdir -p opt; echo by-the-add-on >opt/mark\nexit 1\n",
        0o755,
    )
    failing.put("install/custom/avs/recipes/default.conf", STEPS + "addons = extra\n")
    answer = failing.create()
    assert "add-on extra failed" in answer.error
    entered = shell(failing, "cat /opt/mark /etc/hostname; echo $AVS_PROCEDURE; echo x >/opt/more\n")
    assert entered.out.startswith(f"by-the-add-on\nnode\n{failing.install}/custom/avs/addons/common/extra.sh\n"), (
        entered.err
    )
    assert "add-on extra failed; a shell in the image" in entered.err
    assert not (failing.top / f"state/builds/{PROD}/tree/rootimg/opt").exists()
    assert re.search(r"^addon-extra +failed ", failing("-c", "logs", "example.prod").out, re.MULTILINE)
    assert failing("-c", "logs", "example.prod", "extra").code == 0
    failing.put("install/custom/avs/addons/common/extra.sh", "#!/bin/sh\nmkdir -p opt; echo well >opt/mark\n", 0o755)
    assert failing.create("-b").code == 0


@pytest.mark.slow
def test_no_shell_where_nothing_failed(built: Installation) -> None:
    answer = shell(built, "echo no\n")
    assert (answer.code, answer.out) == (1, "")
    assert f"{PROD}: no step of its last build here failed" in answer.error
    assert "must run as root" in built("-c", "shell", "example.prod", prefix=NOBODY).error


@pytest.mark.slow
def test_check_tells_of_the_build_that_failed(failed: Installation) -> None:
    answer = failed("-c", "check", "example.prod")
    assert f"the last build of {PROD} ended at step breaks; its log: " in answer.out
    assert f"fix: avsimage -c create example.prod --from {failed.top}/source -b" in answer.out


@pytest.mark.slow
def test_logs_of_the_build_that_failed(failed: Installation) -> None:
    answer = failed("-c", "logs", "example.prod")
    assert answer.code == 0, answer.err
    assert re.search(r"^breaks +failed ", answer.out, re.MULTILINE)
    assert re.search(r"^generate_image +done ", answer.out, re.MULTILINE)
    assert "the reason is" in failed("-c", "logs", "example.prod", "breaks").out
    assert "the reason is" in json.loads(failed("-c", "logs", "example.prod", "breaks", "--json").out)["text"]
    assert (
        "there is no log 'brakes' of the last build here (did you mean breaks?)"
        in failed("-c", "logs", "example.prod", "brakes").error
    )


@pytest.fixture
def failing(failed: Installation, tmp_path: Path) -> Iterator[Installation]:
    """The same for one test."""
    saved = failed.top.with_name(failed.top.name + ".saved")
    shutil.copytree(failed.top, saved, symlinks=True)
    try:
        yield failed
    finally:
        shutil.rmtree(failed.top)
        saved.rename(failed.top)


@pytest.mark.slow
def test_logs_of_a_build_that_runs(failing: Installation) -> None:
    failing.put("install/custom/avs/procedures/common/breaks.sh", "#!/bin/sh\necho begun\nsleep 30\n", 0o755)
    log = failing.top / f"logs/{PROD}/breaks.log"
    line = [sys.executable, "-m", "xcat_avs", "-c", "create", "example.prod", "--from", str(failing.top / "source")]
    with subprocess.Popen(line, stderr=subprocess.DEVNULL, env=failing.environment(), cwd="/") as build:
        try:
            deadline = time.monotonic() + 20
            while not (log.exists() and "begun" in log.read_text()):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            answer = failing("-c", "logs", "example.prod")
            assert "the build that runs now, by" in answer.out
            assert re.search(r"^breaks +running ", answer.out, re.MULTILINE)
            assert "begun" in failing("-c", "logs", "example.prod", "breaks").out
            assert f"{PROD} is being built by" in failing("-c", "check").out
        finally:
            build.terminate()
    assert re.search(r"^breaks +failed ", failing("-c", "logs", "example.prod").out, re.MULTILINE)
    assert "ended at step breaks" in failing("-c", "check").out


@pytest.mark.slow
def test_logs_of_failed_builds_are_kept_until_one_succeeds(failing: Installation) -> None:
    procedure = failing.top / "install/custom/avs/procedures/common/breaks.sh"
    time.sleep(1.1)  # another second, and so another name
    procedure.write_text("#!/bin/sh\necho another reason\nexit 3\n")
    assert failing.create("-b").code == 1
    logs = failing.top / f"logs/{PROD}"
    kept = [path.read_text() for path in logs.glob("failed/*/breaks.log")]
    assert len(kept) == 1
    assert "the reason is" in kept[0]
    assert "another reason" in failing("-c", "logs", "example.prod", "breaks").out, "the newest one"
    items = json.loads(failing("-c", "logs", "example.prod", "--json").out)["logs"]
    states = {(item["step"], item["state"], bool(item["build"])) for item in items}
    assert {("breaks", "failed", True), ("breaks", "failed", False), ("generate_image", "done", False)} <= states
    assert failing.create().code == 1  # from the beginning
    assert len(list(logs.glob("failed/*/breaks.log"))) == 2
    procedure.write_text("#!/bin/sh\necho good now\n")
    answer = failing.create("-b")
    assert answer.code == 0, answer.err
    revision = re.findall(r"Stored as revision (\d+)", answer.out)[0]
    assert not (logs / "failed").exists()
    assert "good now" in failing("-c", "logs", "example.prod", "breaks").out
    assert "good now" in failing("-c", "logs", "example.prod", "breaks", "-r", revision).out
    shutil.rmtree(logs)
    listed = failing("-c", "logs", "example.prod")
    assert re.search(r"^breaks +done ", listed.out, re.MULTILINE), "of the store, where there are none here"


# Golden answers.


def normalised(text: str, avs: Installation) -> str:
    """text without what differs from run to run and from machine to machine."""
    text = text.replace(str(avs.top), "TOP").replace(str(TOP), "CHECKOUT").replace(sys.executable, "PYTHON")
    text = re.sub(
        r"\b(fsvs|svn|svnmucc|svnadmin|mmdebstrap|apt-get|cpio|i?gzip|sh|typer|tabulate|Python|avsimage) \d[\w.~+-]*",
        r"\1 N",
        text,
    )
    text = re.sub(r"igzip\b(?: N)?|gzip N", "gzip N", text)
    text = re.sub(r"[\d.]+[GM] free", "SPACE free", text)
    text = re.sub(r"(about )[\d.]+[GM]", r"\1SPACE", text)
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:Z| \w+)", "DATE", text)
    text = re.sub(r"(\"(?:seconds|bytes)\": )[\d.]+", r"\1N", text)
    return re.sub(r" +(\d+s|-) +\d+[KM]", "  TIME  SIZE", text)


MACHINE = ("clock", "space", "left-overs")  # areas of check
STORY = {
    "logs.txt": ["logs", "example.prod"],
    "logs.json": ["logs", "example.prod", "--json"],
    "logs-step.txt": ["logs", "example.prod", "breaks"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", STORY)
def test_golden(failed: Installation, name: str) -> None:
    golden(failed("-c", *STORY[name]), failed, name)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "argv"), [("shell.txt", []), ("shell.json", ["--json"])])
def test_golden_shell(failed: Installation, name: str, argv: list[str]) -> None:
    golden(shell(failed, "echo inside\n", *argv), failed, name)


@pytest.mark.parametrize(("name", "argv"), [("check.txt", []), ("check.json", ["--json"])])
def test_golden_check(avs: Installation, name: str, argv: list[str]) -> None:
    golden(avs("-c", "check", "example.prod", *argv), avs, name)


def golden(answer: Answer, avs: Installation, name: str) -> None:
    assert answer.code == 0, answer.err
    out = answer.out
    if name == "check.json":
        document = json.loads(out)
        # Of the clock, the disks and what other programs have left goes what the machine is.
        document["findings"] = [item for item in document["findings"] if item["area"] not in MACHINE]
        out = json.dumps(document, indent=2, sort_keys=True) + "\n"
    elif name == "check.txt":
        out = re.sub(
            r"^\[....\] (the clock says|[\d.]+[GM] free for|no mounts, loop) .*\n(?: +.*\n)*",
            "",
            out,
            flags=re.MULTILINE,
        )
        out = re.sub(r"\d+ warnings?, \d+ OK", "N warnings, N OK", out)
    text = normalised(out, avs)
    if os.environ.get("AVS_UPDATE_GOLDEN") == "1":
        GOLDEN.mkdir(exist_ok=True)
        (GOLDEN / name).write_text(text, encoding="utf-8")
    assert text == (GOLDEN / name).read_text(encoding="utf-8"), "AVS_UPDATE_GOLDEN=1 writes the present answer"


def test_golden_files_are_of_these_tests() -> None:
    wanted = {*STORY, "shell.txt", "shell.json", "check.txt", "check.json"}
    assert {path.name for path in GOLDEN.iterdir()} == wanted
