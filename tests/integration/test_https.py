"""The store behind Apache httpd: TLS, a password from Subversion's own cache, refusals, and a server that dies."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import wait_until

from integration.harness import ARCH, OSVERS, PROFILE, Installation, output
from integration.test_remote import RSYNC, Server, kill_in_commit

pytestmark = pytest.mark.slow

MODULES = Path("/usr/lib/apache2/modules")
# Of the server; some need those before them.
NEEDED = ("mpm_event", "ssl", "alias", "authn_core", "authn_file", "authz_core", "authz_user", "auth_basic", "dav",
          "dav_svn", "authz_svn")  # fmt: skip
CONF = """ServerRoot {top}
ServerName localhost
DefaultRuntimeDir {top}
PidFile {top}/pid
ErrorLog {top}/error.log
User www-data
Group www-data
Listen 127.0.0.1:{port}
StartServers 1
ThreadsPerChild 16
MaxRequestWorkers 16
MinSpareThreads 1
MaxSpareThreads 16
MaxKeepAliveRequests 0
SSLEngine on
SSLCertificateFile {top}/certificate.pem
SSLCertificateKeyFile {top}/key.pem
Redirect 404 /gone
Redirect 500 /broken
<Location /svn>
DAV svn
SVNParentPath {top}/store
AuthType Basic
AuthName images
AuthUserFile {top}/passwd
AuthzSVNAccessFile {top}/authz
Require valid-user
</Location>
"""


@dataclass
class Apache(Server):
    """httpd on this machine, for the repositories below one directory; create() makes another of them."""

    name: str = ""

    @property
    def repository(self) -> Path:
        return self.top / "store" / self.name

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}/svn/{self.name}"

    def setup(self) -> None:
        (self.top / "store").mkdir()
        loads = [f"LoadModule {name}_module {MODULES}/mod_{name}.so\n" for name in NEEDED]
        (self.top / "conf").write_text("".join(loads) + CONF.format(top=self.top, port=self.port))
        digest = base64.b64encode(hashlib.sha1(b"right").digest()).decode()
        (self.top / "passwd").write_text(f"xcat:{{SHA}}{digest}\nreader:{{SHA}}{digest}\n")
        (self.top / "authz").write_text("[/]\nxcat = rw\nreader = r\n")
        words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
        names = ["-addext", "subjectAltName=DNS:localhost"]
        files = ["-keyout", str(self.top / "key.pem"), "-out", str(self.top / "certificate.pem")]
        output(["openssl", *words.split(), *names, *files])

    def create(self) -> None:
        self.name = f"r{len(list((self.top / 'store').iterdir()))}"
        output(["svnadmin", "create", str(self.repository)])
        output(["chown", "-R", "www-data:", str(self.repository)])

    def start(self) -> None:
        argv = [shutil.which("apache2") or "/usr/sbin/apache2", "-DFOREGROUND", "-f", str(self.top / "conf")]
        (self.top / "pid").unlink(missing_ok=True)
        with open(self.top / "out", "ab") as out:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        wait_until(self._answers)


@pytest.fixture(scope="module")
def apache() -> Iterator[Apache]:
    path = f"{os.environ['PATH']}:/usr/sbin"
    if shutil.which("apache2", path=path) is None or not (MODULES / "mod_dav_svn.so").exists():
        pytest.skip("not installed: apache2 with mod_dav_svn")
    # Its own user has to reach the repositories, and may not enter the directories of tests.
    top = Path(tempfile.mkdtemp(prefix="avs-https.", dir=os.environ.get("PYTEST_DEBUG_TEMPROOT")))
    top.chmod(0o755)
    made = Apache(top, "")
    try:
        made.setup()
        made.start()
        yield made
    finally:
        made.kill()
        shutil.rmtree(top)


@pytest.fixture
def server(apache: Apache, installation: Installation, monkeypatch: pytest.MonkeyPatch) -> Iterator[Apache]:
    """The server with a repository of the test's own, which is the store; nobody has logged in to it yet."""
    apache.create()
    use(installation, apache.url)
    installation.recipe("prepare_image_directory", "generate_image")
    monkeypatch.setenv("HOME", str(installation.home))
    yield apache
    if apache.process is None:
        apache.start()


def use(installation: Installation, url: str) -> None:
    installation.server = url
    installation.define(PROFILE)  # writes avs.conf


def log_in(installation: Installation, apache: Apache, user: str = "xcat") -> Path:
    """What the errors say to type, with a person's answers; returns Subversion's directory."""
    config = installation.home / ".subversion"
    accepted = any((config / "auth/svn.ssl.server").glob("*"))
    answers = ("" if accepted else "p\n") + f"\n{user}\nright\nyes\n"
    words = ["svn", "info", "--force-interactive", apache.url]
    done = subprocess.run(
        words, input=answers, capture_output=True, text=True, check=False, timeout=30, start_new_session=True,
        env={**os.environ, "HOME": str(installation.home), "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return config


def test_round_trip(installation: Installation, server: Apache, source: Path, tmp_path: Path) -> None:
    """With an authority that only root's own `servers` names: every client has to read that, FSVS as well."""
    config = log_in(installation, server)
    shutil.rmtree(config / "auth/svn.ssl.server")
    (config / "servers").write_text(f"[global]\nssl-authority-files = {server.top}/certificate.pem\n")
    root = source / "rootimg"
    os.setxattr(root / "etc/passwd", "user.x", b"1")
    assert "Stored as revision" in installation.create(source).stdout
    assert "no new revision" in installation.create(source).stdout
    installation.run("tag", PROFILE, "-t", "t1")
    installation.run("pack", PROFILE, "-t", "t1")
    assert output([*RSYNC, f"{installation.tree()}/rootimg/", f"{installation.kept}/rootimg/"]) == ""
    assert "t1" in installation.run("verify", PROFILE, "-t", "t1").stdout
    (root / "etc/passwd").write_text("changed\n")
    (root / "etc/mtab").unlink()
    (root / "etc/mtab").mkdir()
    shutil.rmtree(root / "usr/bin")
    (root / "usr/bin").symlink_to("share")
    assert "Stored as revision" in installation.create(source).stdout
    installation.run("tag", PROFILE, "-t", "t2")
    out = installation.checkout(tmp_path / "t2", "t2")
    assert output([*RSYNC, f"{installation.tree()}/rootimg/", f"{out}/"]) == ""
    assert "/usr/bin" in installation.run("diff", PROFILE, "-t", "t1:t2").stdout
    assert [tag["name"] for tag in installation.run("list-tags", PROFILE, "--json").document["tags"]] == ["t1", "t2"]
    assert output(["svnlook", "author", str(server.repository)]).strip() == "xcat"
    server.verify()
    assert server.youngest() == 5  # the layout, two revisions, two tags
    shown = installation.run("verify", PROFILE, "-t", "t1", "--deep", code=None)
    assert "is on a server" in shown.stdout + shown.stderr


def check_refused(installation: Installation, *words: str) -> None:
    error = installation.run("list-tags", PROFILE, code=1).error
    flat = " ".join(error.split())
    assert [word for word in (installation.url, *words) if word not in flat] == [], error


def test_certificate_and_password(installation: Installation, server: Apache, source: Path) -> None:
    """Each refusal in no time, before anything is built, with what to type; and that helps."""
    once = f"`svn info {server.url}` once"
    check_refused(installation, "certificate is not accepted (issuer is not trusted", once, "servers")
    assert once in installation.create(source, code=1).error
    config = log_in(installation, server)
    installation.run("list-tags", PROFILE)

    use(installation, server.url.replace("localhost", "127.0.0.1"))
    check_refused(installation, "certificate is not accepted", "different hostname")
    use(installation, server.url)

    kept = config / "auth/svn.simple"
    (file,) = kept.iterdir()
    file.write_text(file.read_text().replace("right", "wrong"))
    check_refused(installation, f"refuses the password that is kept for xcat in {config}/auth", once)
    assert once in installation.create(source, code=1).error
    assert once in installation.run("pack", PROFILE, "-t", "t1", code=1).error

    shutil.rmtree(kept)
    check_refused(installation, "asks for a password, and none is kept", f"{config}/auth", once)
    assert not installation.tree().exists()
    assert server.youngest() == 0
    log_in(installation, server)
    installation.run("list-tags", PROFILE)


def test_what_is_not_there_or_not_allowed(installation: Installation, server: Apache, source: Path) -> None:
    log_in(installation, server, "reader")
    error = installation.create(source, code=1).error
    assert "forbids this to reader" in " ".join(error.split())
    assert server.youngest() == 0
    base = f"https://localhost:{server.port}"
    for url, words in {
        f"{base}/svn/none": "has no repository there",
        f"{base}/gone/images": "has no repository there",
        f"{base}/elsewhere": "has no repository there",
        f"{base}/broken": "its error log says why",
        f"{base}/svn": "has to be that of a repository",
        f"http://localhost:{server.port}/svn/{server.name}": "does not answer",
        f"https://localhost:1/svn/{server.name}": "does not answer (Error running context: Connection refused)",
        f"https://nosuch.invalid/svn/{server.name}": "does not answer",
    }.items():
        use(installation, url)
        check_refused(installation, words)
    output(["chown", "-R", "root:", str(server.repository)])
    output(["chmod", "700", str(server.repository)])
    use(installation, server.url)
    check_refused(installation, "the server itself failed", "has to own the repository")


def test_server_gone_in_a_commit(installation: Installation, server: Apache, source: Path, tmp_path: Path) -> None:
    log_in(installation, server)
    large = source / "rootimg/a-large"  # is sent first
    for number in range(2):
        before = server.youngest()
        large.write_bytes(os.urandom(12 << 20))
        result = kill_in_commit(server, installation, source)
        assert "nothing was stored" in result.error
        assert f"{server.url} cannot be used: it does not answer" in " ".join(result.error.split())
        installation.assert_clean()
        server.verify()
        assert server.youngest() <= before + (1 if number == 0 else 0)  # the layout
        server.start()
        assert "Stored as revision" in installation.create(source, "-b").stdout
    out = installation.checkout(tmp_path / "out")
    assert output([*RSYNC, f"{installation.tree()}/rootimg/", f"{out}/"]) == ""
    assert list((installation.state / "fsvs").iterdir()) == []


def test_server_gone_in_a_checkout(installation: Installation, server: Apache, source: Path) -> None:
    log_in(installation, server)
    (source / "rootimg/a-large").write_bytes(os.urandom(12 << 20))
    # Fewer open files than the tree has: what is left goes ahead of the commit.
    prefix = ("prlimit", "--nofile=280")
    created = installation.run("create", PROFILE, "--from", str(source), prefix=prefix)
    assert "Stored as revision" in created.stdout
    installation.run("tag", PROFILE, "-t", "t1")
    installation.forget_build()
    run = installation.start("pack", PROFILE, "-t", "t1")
    wait_until(lambda: sizes(installation.state / "checkouts") > 1 << 20 or run.poll() is not None)
    server.kill()
    error = " ".join(installation.finish(run, 30).error.split())
    assert "the checkout of" in error
    assert f"{server.url} cannot be used: it does not answer" in error
    assert not installation.served().exists()
    installation.assert_clean()
    for argv in (["create", PROFILE, "--from", str(source)], ["list-tags", PROFILE]):
        assert "does not answer" in installation.run(*argv, code=1).error
    server.start()
    installation.run("pack", PROFILE, "-t", "t1")
    log = output(["svnlook", "log", "-r", "2", str(server.repository)])
    assert "go ahead of a commit" in log


def sizes(top: Path) -> int:
    found = 0
    for directory, _, names in os.walk(top):
        for name in names:
            try:
                found += os.lstat(os.path.join(directory, name)).st_size
            except OSError:
                continue
    return found


def test_somebody_else_makes_the_first_revision(installation: Installation, server: Apache, source: Path) -> None:
    """Between our look and our commit; what they did is not mixed with ours."""
    log_in(installation, server)
    held = installation.top / "held"
    programs = installation.top / "bin"
    programs.mkdir()
    wait = f": >{held}; while [ -e {held} ]; do sleep 0.02; done"
    (programs / "svnmucc").write_text(f'#!/bin/sh\n{wait}\nexec {shutil.which("svnmucc")} "$@"\n')
    (programs / "svnmucc").chmod(0o755)
    installation.extra["PATH"] = f"{programs}:{os.environ['PATH']}"
    run = installation.start("create", PROFILE, "--from", str(source))
    wait_until(lambda: held.exists() or run.poll() is not None, 60)
    trunk = f"file://{server.repository}/netboot/{OSVERS}/{ARCH}/{PROFILE}/trunk"
    output(["setpriv", "--reuid=www-data", "--regid=www-data", "--clear-groups", "svn", "--config-dir", "/nonexistent",
            "mkdir", "-q", "-m", "other; theirs", f"{trunk}/theirs"])  # fmt: skip
    held.unlink()
    result = installation.finish(run)
    assert "somebody else has committed" in result.error, str(result)
    assert output(["svn", "ls", trunk]) == "theirs/\n"
