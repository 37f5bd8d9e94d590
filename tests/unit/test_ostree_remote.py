"""A store by OSTree that other machines use: read by http and https from its mirror, and shared as a directory."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest

from unit.test_ostree import change, flip, ostree, plant
from unit.test_trees import IMAGE, Site
from xcat_avs.errors import AvsError, NotFoundError
from xcat_avs.store import engines, trees
from xcat_avs.store.ostree import ground, refusals
from xcat_avs.store.ostree.reading import place
from xcat_avs.store.ostree.remote import RemoteStore, listed
from xcat_avs.store.ostree.repository import Repository
from xcat_avs.store.ostree.store import OstreeStore
from xcat_avs.store.protocol import MANIFEST, NewTag, Version
from xcat_avs.system.runner import Runner
from xcat_avs.tree import scan

pytestmark = pytest.mark.slow


class Web(ThreadingHTTPServer):
    """A web server for a directory. asked: the paths of requests. answers: part of a path -> the code it is answered with.

    left: how many requests are answered before it goes away.
    """

    daemon_threads = True

    def __init__(self, directory: Path, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), partial(Handler, directory=str(directory)))
        self.asked: list[str] = []
        self.answers: dict[str, int] = {}
        self.left = 1 << 30
        self.scheme = "http"
        if tls:
            self.scheme = "https"
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"ostree:{self.scheme}://localhost:{self.server_port}/images"

    def handle_error(self, *_: Any) -> None:
        """Clients go away."""

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        web = cast(Web, self.server)
        web.asked.append(self.path)
        web.left -= 1
        code = next((code for part, code in web.answers.items() if part in self.path), 0)
        if web.left < 0:
            self.close_connection = True
        elif code:
            self.send_error(code)
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@dataclass
class Told:
    """A progress that keeps warnings."""

    warnings: list[str] = field(default_factory=list)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def started(self, argv: object) -> None:
        pass

    def tick(self, log: object, far: object) -> None:
        pass


@dataclass
class Served(Site):
    """A site whose store has a mirror behind a web server, and another machine that reads it."""

    engine: str = "ostree"
    told: Told = field(default_factory=Told)

    @property
    def mirror(self) -> Path:
        return self.top / "www/images"

    @property
    def own(self) -> OstreeStore:
        return cast(
            OstreeStore, engines.store(f"ostree:{self.top}/repo", self.top, Runner(timeout=60, progress=self.told), str)
        )

    def store_change(self, text: str) -> None:
        change(self, text)
        trees.commit_tree(self.own, IMAGE, self.tree, "ann", "ann; m", self.warned.append)

    def tag(self, name: str, number: int) -> None:
        self.own.tag(IMAGE, NewTag(name, number, "ann", "m", real=""))

    def elsewhere(self, web: Web, state: str = "state") -> RemoteStore:
        return cast(RemoteStore, engines.store(web.url, self.top / state, Runner(timeout=60), str))


@pytest.fixture
def site(tmp_path: Path) -> Served:
    """Two revisions and a tag, with a mirror."""
    if shutil.which("ostree") is None:
        pytest.skip("not installed: ostree")
    if os.geteuid() != 0:
        pytest.skip("not root")
    made = Served(tmp_path)
    (made.tree / "build_info").mkdir(parents=True)
    (made.root / "etc").mkdir(parents=True)
    (made.root / "usr/bin").mkdir(parents=True)
    for number in range(30):
        (made.root / f"usr/bin/{number}").write_bytes(os.urandom(2000))
    (made.root / "usr/bin/0").chmod(0o4711)
    os.chown(made.root / "usr/bin/1", 7, 8)
    os.setxattr(
        made.root / "usr/bin/2", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000")
    )
    os.mknod(made.root / "null", 0o20666, os.makedev(1, 3))
    (made.root / "etc/link").symlink_to("passwd")
    made.store_change("one\n")
    made.mirror.mkdir(parents=True)
    made.mirror.chmod(0o750)
    os.chown(made.mirror, 0, 33)
    ostree(tmp_path / "repo", "config", "set", "avs.mirror", str(made.mirror))
    made.store_change("two\n")
    made.tag("t1", 1)
    return made


@pytest.fixture
def web(site: Served) -> Iterator[Web]:
    made = Web(site.mirror.parent)
    yield made
    made.stop()


def checked_out(site: Served, store: RemoteStore, version: Version) -> Path:
    target = site.top / "elsewhere/tree"
    trees.checkout_tree(store, IMAGE, version, target, site.warned.append)
    return target


def files(store: RemoteStore) -> set[str]:
    """The content objects of the cache."""
    return {path.name for path in (store.files.path / "objects").rglob("*.file")}


def test_read_by_http(site: Served, web: Web) -> None:
    """Only what is needed is pulled, and only once."""
    store, own = site.elsewhere(web), site.own
    assert site.told.warnings == []
    assert (site.mirror.stat().st_mode & 0o7777, site.mirror.stat().st_gid) == (0o750, 33), "as it was made"
    assert store.tags(IMAGE) == own.tags(IMAGE)
    assert store.log(IMAGE) == own.log(IMAGE)
    assert store.summaries([IMAGE]) == own.summaries([IMAGE])
    assert files(store) == set()
    assert store.url(IMAGE, Version(tag="t1")) == f"{web.url}#{place(IMAGE)}/tags/t1"
    assert [store.brought(IMAGE, number, MANIFEST) for number in (1, 2)] == [True, True]
    assert store.read(IMAGE, Version(tag="t1"), "build_info/manifest") == own.read(
        IMAGE, Version(tag="t1"), "build_info/manifest"
    )
    assert store.read(IMAGE, Version(), "rootimg/etc/passwd") == b"two\n"
    assert len(files(store)) == 2, "the manifest, and passwd"
    with pytest.raises(NotFoundError):
        store.read(IMAGE, Version(), "rootimg/usr/bin/none")
    target = checked_out(site, store, Version())
    assert scan.scan(str(target / "rootimg")) == site.rootimg(site.tree)
    web.asked.clear()
    store = site.elsewhere(web)
    target = checked_out(site, store, Version(tag="t1"))
    assert (target / "rootimg/etc/passwd").read_text() == "one\n"
    assert len([path for path in web.asked if path.endswith(".filez")]) == 1, "passwd; the manifest is there"
    web.asked.clear()
    checked_out(site, site.elsewhere(web), Version(tag="t1"))
    assert not [path for path in web.asked if "objects" in path]
    # What happens there is seen here.
    site.store_change("three\n")
    site.tag("t+3", 3)
    store = site.elsewhere(web)
    assert [tag.name for tag in store.tags(IMAGE)] == ["t1", "t+3"]
    assert store.changes(IMAGE, Version(tag="t1"), Version(tag="t+3")) == [
        ("build_info/manifest", "changed"), ("rootimg/etc/passwd", "changed"),
    ]  # fmt: skip
    own.forget(IMAGE, [Version(tag="t1"), Version(revision=1)])
    store = site.elsewhere(web)
    assert [tag.name for tag in store.tags(IMAGE)] == ["t+3"]
    assert [revision.number for revision in store.log(IMAGE)] == [3, 2]
    for path in (site.mirror, store.files.path):
        assert (
            "one"
            not in subprocess.run(
                ["ostree", "refs", f"--repo={path}"], capture_output=True, text=True, check=True
            ).stdout
        )
        ostree(path, "fsck", "--quiet")
    assert site.told.warnings == []
    assert store.identity() == site.elsewhere(web).identity() != own.identity()


def test_what_is_only_read(site: Served, web: Web) -> None:
    store = site.elsewhere(web)
    for action in (
        lambda: store.prepare(IMAGE, "ann"), lambda: store.tag(IMAGE, NewTag("t2", 2, "ann", "m", real="")),
        lambda: trees.commit_tree(store, IMAGE, site.tree, "ann", "m", site.warned.append),
    ):  # fmt: skip
        with pytest.raises(
            AvsError, match="can only be read, for it is behind a web server; create, tag and prune on the machine"
        ):
            action()
    assert store.caches == site.top / "state/pulled"  # not where the store of this machine may be
    with pytest.raises(NotFoundError, match="is on a server: `ostree fsck` has to be run there"):
        store.check()
    assert store.forget(IMAGE, [Version(revision=1)]) is None


def refused(store: RemoteStore) -> str:
    def pull() -> None:
        store.tags(IMAGE)
        trees.checkout_tree(store, IMAGE, Version(), store.caches / "tree", lambda _: None)

    with pytest.raises(AvsError) as caught:
        pull()
    assert f"the store {store.repository} cannot be read: " in str(caught.value)
    assert not (store.caches / "tree").exists()
    return str(caught.value)


def no_summary(site: Served, _web: Web) -> None:
    (site.mirror / "summary").unlink()


def bare(site: Served, _web: Web) -> None:
    shutil.rmtree(site.mirror)
    site.mirror.symlink_to(site.top / "repo")
    ostree(site.mirror, "summary", "-u")


def damaged(site: Served, _web: Web) -> None:
    for path in (site.mirror / "objects").rglob("*.filez"):
        flip(path)


def no_list(site: Served, _web: Web) -> None:
    (site.mirror / "summary").write_bytes(b"<html>Welcome</html>")


def hostile(site: Served, _web: Web) -> None:
    """Trunk is a commit whose top directory holds a path that leads elsewhere."""
    plant(site, ["../evil"])
    commit = site.own.files.ref(f"{place(IMAGE)}/trunk")
    for path in [*(site.top / "repo/objects").rglob("*.dirtree"), site.own.files.object(commit, "commit")]:
        target = site.mirror / path.relative_to(site.top / "repo")
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
    Repository(site.mirror).set_ref(f"{place(IMAGE)}/trunk", commit)
    ostree(site.mirror, "summary", "-u")


def answer(part: str, code: int) -> Callable[[Served, Web], None]:
    return lambda _site, web: web.answers.update({part: code})


REFUSALS: list[tuple[Callable[[Served, Web], None], str]] = [
    (answer("images", 404), "it answers HTTP 404: is http://localhost:"),
    (answer("images", 403), "it forbids this (HTTP 403)"),
    (answer("images", 401), "it forbids this (HTTP 401)"),
    (answer("images", 500), "the server itself failed (HTTP 500)"),
    (no_summary, "and `ostree summary --repo=DIR -u` there the summary"),
    (answer(".filez", 404), "Where it is, some of it is missing"),
    (bare, "it is of the mode bare, which cannot be pulled by http"),
    (no_list, "/images/summary is no summary of OSTree"),
    (damaged, "what it hands out is damaged"),
    (hostile, "../evil"),
    (lambda _, web: web.stop(), "it does not answer"),
]


def test_refusals(site: Served, web: Web) -> None:
    """Each in its own words."""
    for name in ("www", "repo"):
        shutil.copytree(site.top / name, site.top / f"{name}.whole", symlinks=True)
    for number, (act, text) in enumerate(REFUSALS):
        for name in ("www", "repo"):
            shutil.rmtree(site.top / name)
            shutil.copytree(site.top / f"{name}.whole", site.top / name, symlinks=True)
        web.answers.clear()
        act(site, web)
        assert text in refused(site.elsewhere(web, f"state.{number}"))
    assert not list(site.top.rglob("evil*"))


def test_a_server_that_goes_away_in_a_pull(site: Served, web: Web) -> None:
    """What was pulled is not pulled again."""
    store = site.elsewhere(web)
    store.tags(IMAGE)
    web.left = 20
    said = refused(store)
    assert "the server went away meanwhile" in said
    assert "what was pulled is kept" in said
    first = [path for path in web.asked if path.endswith(".filez")][:5]
    web.left = 1 << 30
    web.asked.clear()
    store = site.elsewhere(web)
    target = checked_out(site, store, Version())
    assert not set(first) & set(web.asked)
    assert scan.scan(str(target / "rootimg")) == site.rootimg(site.tree)


def test_https(site: Served, tmp_path: Path) -> None:
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", *words.split(), "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    web = Web(site.mirror.parent, tls)
    try:
        store = site.elsewhere(web)
        said = refused(store)
        assert "its certificate is not accepted" in said
        setting = said.split("`")[1].replace("/etc/pki/site.pem", str(certificate))
        subprocess.run(setting, shell=True, check=True)
        assert [tag.name for tag in site.elsewhere(web).tags(IMAGE)] == ["t1"]
    finally:
        web.stop()


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("ostree:https://ann:secret@host/path", "has a login in its URL"), ("ostree:https://host#x", "is no URL of a repository"),
        ("ostree:http:///path", "is no URL of a repository"), ("ostree:https://host/path?x=1", "is no URL of a repository"),
    ],
)  # fmt: skip
def test_urls(url: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(AvsError, match=text) as caught:
        engines.store(url, tmp_path, Runner(), str)
    assert "secret" not in str(caught.value)
    assert engines.directory(url) is None


def test_a_mirror_that_cannot_be_written(site: Served, web: Web) -> None:
    """It is no reason to lose a commit; and the next one brings all."""
    ostree(site.top / "repo", "config", "set", "avs.mirror", "/nowhere/at/all")
    site.store_change("three\n")
    assert site.own.head(IMAGE) == site.own.revision(IMAGE, 3)
    (warning,) = site.told.warnings
    assert "what is stored is not in the mirror /nowhere/at/all" in warning
    assert "`install -d -m 750 -g www-data /nowhere/at/all`" in warning
    assert "The next create, tag or prune brings it there" in warning
    ostree(site.top / "repo", "config", "set", "avs.mirror", str(site.mirror))
    trees.commit_tree(site.own, IMAGE, site.tree, "ann", "ann; nothing has changed", site.warned.append)
    assert len(site.elsewhere(web).log(IMAGE)) == 3
    ostree(site.mirror, "config", "set", "core.mode", "bare")
    site.tag("t4", 3)
    assert "it is of mode bare" in site.told.warnings[-1]


def test_a_mirror_that_lacks_something(site: Served, web: Web) -> None:
    """The error says how it becomes whole, and so it does; the group of the web server may still enter it."""
    for path in site.mirror.rglob("*.filez"):
        path.unlink()
    said = refused(site.elsewhere(web))
    find = said.partition("(`find DIR ")[2].partition("`")[0]
    subprocess.run(["find", site.mirror, *find.split()], check=True)
    site.tag("t2", 2)
    assert site.told.warnings == []
    assert (site.mirror.stat().st_mode & 0o7777, site.mirror.stat().st_gid) == (0o750, 33)
    checked_out(site, site.elsewhere(web), Version(revision=1))


def test_the_mirror_at_the_top_of_a_server(site: Served) -> None:
    """As a host of its own, or a server for a try, has it. The first use makes the state directory for root only."""
    web = Web(site.mirror)
    try:
        web_url = web.url.rpartition("/")[0]
        for number, url in enumerate((web_url, f"{web_url}/")):
            store = engines.store(url, site.top / f"new{number}/state", Runner(timeout=60), str)
            assert [tag.name for tag in store.tags(IMAGE)] == ["t1"]
            assert (site.top / f"new{number}/state").stat().st_mode & 0o7777 == 0o700
    finally:
        web.stop()


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("error: While fetching https://h/config: Unacceptable TLS certificate", "its certificate is not accepted"),
        ("error: Server returned status 404: Not Found", "it answers HTTP 404"),
        ("error: While fetching http://h/config: [28] Timeout was reached", "it does not answer (Timeout was reached)"),
        ("error: Error resolving “h”: Name or service not known", "it does not answer"),
        ("error: While fetching http://h/x: [18] Transferred a partial file", "the server went away meanwhile"),
        ("error: something else", ""), ("error: Server returned HTTP 418", "it answers HTTP 418"),
    ],
)  # fmt: skip
def test_words_of_other_builds(said: str, text: str) -> None:
    assert text in refusals.meaning(said, "http://h", Path("/cache"))
    assert bool(refusals.meaning(said, "http://h", Path("/cache"))) is bool(text)


def test_refs_of_a_summary() -> None:
    """As GLib prints them: bytes that end in the only 0 among them look like text."""
    numbers = ", ".join(["byte 0x01", *["0xff"] * 31])
    text = rf"""([('a/b', (uint64 115, [{numbers}], {{}})), ('c', (115, b'\001x"{"y" * 28}\n', {{}})), ('d', (1, b"'{"z" * 30}", {{}}))], {{}})"""
    assert listed(text) == {
        "a/b": "01" + "ff" * 31,
        "c": (b'\x01x"' + b"y" * 28 + b"\n\0").hex(),
        "d": (b"'" + b"z" * 30 + b"\0").hex(),
    }


# -- a directory that machines share


@pytest.fixture
def seen(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts a directory once more, with options of bindfs, as another machine may see it."""
    if shutil.which("bindfs") is None:
        pytest.skip("not installed: bindfs")
    point = tmp_path / "shared"

    def mount(*options: str) -> Path:
        for directory in (point, tmp_path / "exported"):
            directory.mkdir()
        subprocess.run(["bindfs", *options, str(tmp_path / "exported"), str(point)], check=True)
        return point

    yield mount
    subprocess.run(["umount", str(point)], check=False)


def on(directory: Path) -> OstreeStore:
    return cast(OstreeStore, engines.store(f"ostree:{directory}/repo", directory, Runner(timeout=60), str))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--force-user=nobody"], "what root writes there belongs to user 65534: an NFS server has to export it with no_root_squash"),
        (["--chown-deny"], "does not keep owner, mode, links and hard links"), (["--chown-ignore"], "does not keep owner"),
    ],
)  # fmt: skip
def test_a_directory_where_root_is_nobody(
    seen: Callable[..., Path], options: list[str], text: str, tmp_path: Path
) -> None:
    store = on(seen(*options))
    with pytest.raises(AvsError) as caught:
        store.prepare(IMAGE, "ann")
    assert text in str(caught.value)
    assert f"cannot make the store {store.repository}" in str(caught.value)
    assert list((tmp_path / "exported").iterdir()) == []


def test_a_directory_without_attributes(site: Served, seen: Callable[..., Path]) -> None:
    """As NFS, which keeps no capabilities: the manifest brings them back."""
    store = on(seen("--xattr-none"))
    for text in ("one\n", "two\n"):
        change(site, text)
        os.setxattr(site.root / "etc/passwd", "user.x", text.encode())
        trees.commit_tree(store, IMAGE, site.tree, "ann", "m", site.warned.append)
        target = site.top / "there/tree"
        trees.checkout_tree(store, IMAGE, Version(), target, site.warned.append)
        assert scan.scan(str(target / "rootimg")) == site.rootimg(site.tree)
    assert site.warned == []
    assert store.check()


def test_a_mount_whose_locks_are_of_one_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "mounts"
    monkeypatch.setattr(ground, "MOUNTS", table)
    for options, text in (("rw,vers=3,nolock", "mounted with nolock"), ("rw,local_lock=all", "mounted with local_lock=all"),
                          ("rw,vers=4.2,local_lock=none", ""), ("rw,local_lock=posix", "")):  # fmt: skip
        table.write_text(f"/dev/x / ext4 rw 0 0\nhost:/x {tmp_path} nfs4 {options} 0 0\nhost:/y /y nfs nolock 0 0\n")
        assert text in ground.unfit(tmp_path)
        assert bool(ground.unfit(tmp_path)) is bool(text)


def test_a_repository_that_root_may_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = on(tmp_path)
    store.prepare(IMAGE, "ann")

    def forbidden(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", forbidden)
    with pytest.raises(AvsError, match="config: Permission denied; an NFS server has to export it with no_root_squash"):
        on(tmp_path)
