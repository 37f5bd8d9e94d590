"""The store on a server: by svn:// and svn+ssh://, with others who commit, and a server that dies."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from harness import Result, wait_until

from integration.harness import ARCH, OSVERS, PROFILE, Installation, difference, look, output

pytestmark = pytest.mark.slow

RSYNC = ["rsync", "-aHAXn", "--checksum", "--delete", "-i", "--numeric-ids"]
# Stands for ssh: the host is this machine, and what is to run there is run.
SSH = """#!/bin/sh
echo "$*" >>"$0.log"
while [ "${1#-}" != "$1" ]; do
    case $1 in -[opilF]) shift ;; esac
    shift
done
[ "$1" = store.example ] || { echo "ssh: Could not resolve hostname $1" >&2; exit 255; }
shift
exec "$@"
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Server:
    """svnserve on this machine, with a repository of its own."""

    top: Path
    conf: str
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def repository(self) -> Path:
        return self.top / "images"

    @property
    def url(self) -> str:
        return f"svn://127.0.0.1:{self.port}/images"

    def create(self) -> None:
        self.top.mkdir()
        output(["svnadmin", "create", str(self.repository)])
        (self.repository / "conf/svnserve.conf").write_text(f"[general]\n{self.conf}")
        (self.repository / "conf/passwd").write_text("[users]\nxcat = right\n")

    def start(self) -> None:
        argv = ["svnserve", "-d", "--foreground", "-r", str(self.top), "--listen-host", "127.0.0.1"]
        self.process = subprocess.Popen(
            [*argv, "--listen-port", str(self.port)], stdin=subprocess.DEVNULL, start_new_session=True
        )
        wait_until(self._answers)

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def kill(self) -> None:
        """It and what it has forked are gone at once."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(30)
            self.process = None

    def youngest(self) -> int:
        return int(output(["svnlook", "youngest", str(self.repository)]))

    def verify(self) -> None:
        output(["svnadmin", "verify", "-q", str(self.repository)])


def serving(tmp_path: Path, installation: Installation, conf: str) -> Server:
    server = Server(tmp_path / "server", conf)
    server.create()
    server.start()
    installation.server = server.url
    installation.define(PROFILE)  # writes avs.conf
    installation.recipe("prepare_image_directory", "generate_image")
    return server


@pytest.fixture
def server(installation: Installation, tmp_path: Path) -> Iterator[Server]:
    """A server that everybody may write to."""
    if shutil.which("svnserve") is None:
        pytest.skip("not installed: svnserve")
    made = serving(tmp_path, installation, "anon-access = write\n")
    yield made
    made.kill()


@pytest.fixture
def guarded(installation: Installation, tmp_path: Path) -> Iterator[Server]:
    """A server that asks for a password."""
    if shutil.which("svnserve") is None:
        pytest.skip("not installed: svnserve")
    text = "anon-access = none\nauth-access = write\npassword-db = passwd\nrealm = images\n"
    made = serving(tmp_path, installation, text)
    yield made
    made.kill()


def check_round_trip(installation: Installation, source: Path, tmp_path: Path) -> None:
    """create, tag, pack, create, tag, pack, and once more without a change."""
    root = source / "rootimg"
    (root / "new\nline").write_text("carried\n")
    os.link(root / "etc/passwd", root / "usr/share/hard")
    os.setxattr(root / "etc/passwd", "user.x", b"1")
    for number, tag in enumerate(("t1", "t2")):
        assert "Stored as revision" in installation.create(source).stdout
        installation.run("tag", PROFILE, "-t", tag)
        installation.run("pack", PROFILE, "-t", tag)
        out = installation.checkout(tmp_path / tag, tag)
        assert output([*RSYNC, f"{installation.tree()}/rootimg/", f"{out}/"]) == ""
        assert difference(look(root, times=False), look(out, times=False)) == {}
        assert "no new revision" in installation.create(source).stdout
        if number == 0:
            (root / "etc/passwd").write_text("changed\n")
            (root / "etc/mtab").unlink()
            (root / "etc/mtab").mkdir()
            shutil.rmtree(root / "usr/bin")
            (root / "usr/bin").symlink_to("share")
    assert installation.run("list-tags", PROFILE, "--json").document["tags"][1]["name"] == "t2"


def test_svn(installation: Installation, server: Server, source: Path, tmp_path: Path) -> None:
    check_round_trip(installation, source, tmp_path)
    server.verify()
    assert server.youngest() == 5  # the layout, two revisions, two tags


def test_svn_with_a_password(installation: Installation, guarded: Server, source: Path, tmp_path: Path) -> None:
    """Once somebody has logged in and it was kept, nothing asks."""
    environment = {**os.environ, "HOME": str(installation.home)}
    config = installation.home / ".subversion"
    config.mkdir()
    (config / "config").write_text("[auth]\npassword-stores =\n")
    (config / "servers").write_text("[global]\nstore-passwords = yes\nstore-plaintext-passwords = yes\n")
    subprocess.run(
        ["svn", "info", "--non-interactive", "--username", "xcat", "--password", "right", guarded.url],
        check=True, env=environment, timeout=30, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    check_round_trip_with_home(installation, source, tmp_path)
    log = output(["svnlook", "author", str(guarded.repository)]).strip()
    assert log == "xcat", "who the server knows"
    shown = installation.run("show", PROFILE, "--json").document
    assert "ann" in str(shown), "who the message names"
    # The password was changed on the server.
    (guarded.repository / "conf/passwd").write_text("[users]\nxcat = another\n")
    (source / "rootimg/etc/passwd").write_text("changed again\n")
    before = guarded.youngest()
    result = installation.finish(installation.start("create", PROFILE, "--from", str(source)), 30)
    assert (result.code, guarded.youngest()) == (1, before)
    assert guarded.url in result.error
    assert "uthentication" in result.error or "credentials" in result.error, result.error


def check_round_trip_with_home(installation: Installation, source: Path, tmp_path: Path) -> None:
    assert "Stored as revision" in installation.create(source, "-u", "ann").stdout
    (source / "rootimg/etc/passwd").write_text("changed\n")
    assert "Stored as revision" in installation.create(source, "-u", "ann").stdout
    installation.run("tag", PROFILE, "-t", "t1", "-u", "ann")
    installation.run("pack", PROFILE, "-t", "t1")
    out = installation.state / "checkouts"
    kept = next(out.glob("*/tree"))
    assert output([*RSYNC, f"{installation.tree()}/rootimg/", f"{kept}/rootimg/"]) == ""
    assert "no new revision" in installation.create(source, "-u", "ann").stdout


def test_no_password(installation: Installation, guarded: Server, source: Path) -> None:
    """A clear error, in no time, before anything is built; nothing waits for an answer."""
    result = installation.finish(installation.start("create", PROFILE, "--from", str(source)), 30)
    assert result.code == 1, str(result)
    assert guarded.url in result.error
    assert re.search("Can't get (username or )?password", result.error)
    assert not installation.tree().exists()
    for argv in (["list-tags", PROFILE], ["pack", PROFILE, "-t", "t1"], ["tag", PROFILE, "-t", "t1"]):
        failed = installation.run(*argv, code=1)
        assert guarded.url in failed.error, argv
    assert guarded.youngest() == 0


def test_svn_ssh(installation: Installation, source: Path, tmp_path: Path) -> None:
    """A server at the other end of ssh; what stands for ssh runs svnserve -t here."""
    repository = tmp_path / "server/images"
    repository.parent.mkdir()
    output(["svnadmin", "create", str(repository)])
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "ssh").write_text(SSH)
    (programs / "ssh").chmod(0o755)
    installation.extra["PATH"] = f"{programs}:{os.environ['PATH']}"
    os_path, os.environ["PATH"] = os.environ["PATH"], installation.extra["PATH"]
    try:
        installation.server = f"svn+ssh://store.example{repository}"
        installation.define(PROFILE)
        installation.recipe("prepare_image_directory", "generate_image")
        check_round_trip(installation, source, tmp_path)
    finally:
        os.environ["PATH"] = os_path
    assert "svnserve -t" in (programs / "ssh.log").read_text()
    installation.server = "svn+ssh://nobody.example/images"
    installation.define(PROFILE)
    error = installation.create(source, code=1).error
    assert "svn+ssh://nobody.example/images" in error


@pytest.mark.parametrize("variable", ["SVN_SSH", "SSH_AUTH_SOCK"])
def test_svn_ssh_as_the_environment_has_it(
    installation: Installation, source: Path, tmp_path: Path, variable: str
) -> None:
    """Subversion takes the program from SVN_SSH, and ssh its keys from the agent at SSH_AUTH_SOCK."""
    repository = tmp_path / "server/images"
    repository.parent.mkdir()
    output(["svnadmin", "create", str(repository)])
    programs = tmp_path / "bin"
    programs.mkdir()
    tunnel = programs / ("tunnel" if variable == "SVN_SSH" else "ssh")
    tunnel.write_text(SSH.replace("echo ", 'echo "$SSH_AUTH_SOCK" ', 1))
    tunnel.chmod(0o755)
    if variable == "SVN_SSH":
        installation.extra["SVN_SSH"] = str(tunnel)
    else:
        installation.extra["PATH"] = f"{programs}:{os.environ['PATH']}"
        installation.extra["SSH_AUTH_SOCK"] = "/the/agent"
    installation.server = f"svn+ssh://store.example{repository}"
    installation.define(PROFILE)
    assert "Stored as revision" in installation.create(source).stdout
    (source / "rootimg/etc/passwd").write_text("changed\n")
    assert "Stored as revision" in installation.create(source).stdout
    log = (programs / f"{tunnel.name}.log").read_text()
    assert variable == "SVN_SSH" or {line.split()[0] for line in log.splitlines()} == {"/the/agent"}


def test_two_images_at_once(installation: Installation, server: Server, source: Path, tmp_path: Path) -> None:
    installation.recipe("prepare_image_directory", "generate_image", profile="example.test")
    for change in ("first", "second"):
        (source / "rootimg/etc/issue").write_text(change)
        runs = [installation.start("create", profile, "--from", str(source)) for profile in (PROFILE, "example.test")]
        results = [installation.finish(run) for run in runs]
        assert [str(result) for result in results if result.code] == []
        assert all("Stored as revision" in result.stdout for result in results)
    server.verify()
    for profile in (PROFILE, "example.test"):
        out = installation.checkout(tmp_path / profile, profile=profile)
        assert (out / "etc/issue").read_text() == "second"


# -- others who commit


@pytest.mark.parametrize("moment", ["before", "while it is sent"])
@pytest.mark.parametrize("path", ["rootimg/etc/issue", "rootimg/etc/passwd"])
def test_somebody_else_commits_meanwhile(
    installation: Installation, server: Server, source: Path, tmp_path: Path, path: str, moment: str
) -> None:
    """What they did is not overwritten and not mixed with ours, whatever file it was."""
    (source / "rootimg/etc/issue").write_text("x")
    installation.create(source)
    before = server.youngest()
    theirs = tmp_path / "theirs"
    theirs.write_text("theirs\n")
    (source / "rootimg/etc/passwd").write_text("ours\n")
    # Between our look at the head and our commit, or within the commit: held until theirs is in.
    hold, held = tmp_path / "hold", tmp_path / "held"
    hold.touch()
    wait = f": >{held}; while [ -e {hold} ]; do sleep 0.05; done"
    hook = server.repository / "hooks/start-commit"
    if moment == "before":
        programs = tmp_path / "bin"
        programs.mkdir()
        (programs / "svnmucc").write_text(f'#!/bin/sh\n{wait}\nexec {shutil.which("svnmucc")} "$@"\n')
        (programs / "svnmucc").chmod(0o755)
        installation.extra["PATH"] = f"{programs}:{os.environ['PATH']}"
    else:
        hook.write_text(f'#!/bin/sh\n[ "$2" = other ] && exit 0\n{wait}\n')
        hook.chmod(0o755)
    run = installation.start("create", PROFILE, "--from", str(source))
    try:
        wait_until(lambda: held.exists() or run.poll() is not None, 60)
        url = f"file://{server.repository}/netboot/{OSVERS}/{ARCH}/{PROFILE}/trunk/{path}"
        output(["svnmucc", "--username", "other", "-m", "other; theirs", "put", str(theirs), url])
    finally:
        hold.unlink()
    result = installation.finish(run)
    assert result.code == 1, str(result)
    assert "somebody else has committed" in result.error
    assert output(["svn", "cat", url]) == "theirs\n"
    mixed = moment != "before" and path == "rootimg/etc/issue"
    assert server.youngest() == before + (3 if mixed else 1)
    hook.unlink(missing_ok=True)

    if mixed or path == "rootimg/etc/passwd":
        # The trees of nobody: what is there has no manifest that says otherwise, or one that tells.
        installation.run("tag", PROFILE, "-t", "theirs")
        result = installation.run("pack", PROFILE, "-t", "theirs", code=None)
        assert "has no manifest" in result.stderr if mixed else "rootimg/etc/passwd: size, sha256" in result.error
    assert "Stored as revision" in installation.create(source, "-b").stdout
    server.verify()
    out = installation.checkout(tmp_path / "out")
    assert output([*RSYNC, f"{installation.tree()}/rootimg/", f"{out}/"]) == ""
    assert (out / "etc/issue").read_text() == "x"
    assert (out / "etc/passwd").read_text() == "ours\n"


# -- a server that dies


def transactions(server: Server) -> list[Path]:
    return list((server.repository / "db/transactions").glob("*.txn"))


def kill_in_commit(server: Server, installation: Installation, source: Path) -> Result:
    """Kill the server as soon as a transaction of ours has begun."""
    before = set(transactions(server))
    run = installation.start("create", PROFILE, "--from", str(source))
    wait_until(lambda: set(transactions(server)) - before or run.poll() is not None, 60)
    # svnserve may have made the layout just now: that is a transaction as well, and soon gone.
    contents = server.repository / "db/txn-protorevs"
    wait_until(lambda: any(path.stat().st_size > 1 << 20 for path in contents.glob("*.rev")) or run.poll() is not None)
    server.kill()
    return installation.finish(run)


def test_server_killed_in_a_first_and_in_a_later_commit(
    installation: Installation, server: Server, source: Path, tmp_path: Path
) -> None:
    large = source / "rootimg/usr/share/large"
    for number in range(2):
        before = server.youngest()
        large.write_bytes(os.urandom(40 << 20))
        result = kill_in_commit(server, installation, source)
        assert result.code == 1, str(result)
        assert "nothing was stored" in result.error
        assert server.url in result.error
        installation.assert_clean()
        server.verify()
        assert server.youngest() <= before + (1 if number == 0 else 0)  # the layout
        trunk = f"file://{server.repository}/netboot/{OSVERS}/{ARCH}/{PROFILE}/trunk"
        if number == 0:
            assert output(["svn", "ls", trunk]) == ""
        server.start()
        assert "Stored as revision" in installation.create(source, "-b").stdout
        server.verify()
        out = installation.checkout(tmp_path / f"out{number}")
        assert output([*RSYNC, f"{installation.tree()}/rootimg/", f"{out}/"]) == ""
        assert list((installation.state / "fsvs").iterdir()) == []


def test_server_that_is_down(installation: Installation, server: Server, source: Path) -> None:
    server.kill()
    for argv in (["create", PROFILE, "--from", str(source)], ["list-tags", PROFILE], ["pack", PROFILE, "-t", "t1"]):
        result = installation.run(*argv, code=1)
        assert server.url in result.error, argv
        assert "onnect" in result.error, argv
    assert not installation.tree().exists()
    server.start()
    assert "Stored as revision" in installation.create(source).stdout
