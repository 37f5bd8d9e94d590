"""./quickstart for real: a Debian tree by mmdebstrap, through FSVS, to published archives."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny

from xcat_avs.boot import arguments, booting, judge, machine
from xcat_avs.boot.booting import Outcome, Terms
from xcat_avs.boot.machine import Guest
from xcat_avs.system.progress import Progress

TOP = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).with_name("golden")
IMAGE = "debian12-x86_64-netboot-example.prod"

pytestmark = pytest.mark.slow


class Quickstart:
    """One finished run and its installation."""

    def __init__(self, top: Path) -> None:
        self.top = top
        home = top.with_name("home")  # of somebody without an ssh key
        home.mkdir()
        self.env = {**os.environ, "AVS_QUICKSTART": str(top), "SUDO_USER": "", "TZ": "UTC", "HOME": str(home)}
        self.script = self.run(str(TOP / "quickstart"))

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(argv, env=self.env, text=True, capture_output=True, check=False, stdin=subprocess.DEVNULL)

    def avsimage(self, *words: str) -> subprocess.CompletedProcess[str]:
        self.env["AVS_CONF"] = str(self.top / "avs.conf")
        return self.run(str(self.top / "venv/bin/avsimage"), *words)

    @property
    def tree(self) -> Path:
        """The tree of the last build, which a pack has made the kept checkout."""
        lent = (self.top / "state/builds" / IMAGE / "lent").exists()
        return self.top / "state" / ("checkouts" if lent else "builds") / IMAGE / "tree"

    def served(self, profile: str) -> Path:
        return self.top / "install/netboot/debian12/x86_64" / profile


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Quickstart]:
    top = tmp_path_factory.mktemp("quickstart") / "q"
    run = Quickstart(top)
    assert run.script.returncode == 0, run.script.stdout[-3000:] + run.script.stderr[-3000:]
    yield run
    shutil.rmtree(top, ignore_errors=True)


def normal(text: str, quickstart: Quickstart) -> str:
    """The text without what differs from run to run: times, dates, places, sizes of today's packages."""
    text = text.replace(str(quickstart.top), "TOP").replace(str(TOP), "SOURCE")
    text = re.sub(r"\d{4}-\d\d-\d\d-\d\d-\d\d-\d\d-quickstart", "TAG-NAME-AS-LONG-AS-A-DATE-BY-QS", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "DATE", text)
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [A-Z]{3,4}", "DATE", text)
    text = re.sub(r"[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d [A-Z]{3,4} \d{4}", "DATE", text)
    text = re.sub(r" +-?\d+s +-?\d+ +-?\d+M +\d+ +\d+M", " TIME COUNT SIZE COUNT SIZE", text)
    text = re.sub(r"\(\d+M\)", "(SIZE)", text)
    text = re.sub(r"Up after \d+ s \(.*?, \d+ MiB, the set", "Up after N s (HOW, N MiB, the set", text)
    text = re.sub(
        r"needs \d+ MiB of memory for this form: rootimg.cpio.gz of \d+M, unpacked \d+ MiB",
        "needs N MiB of memory for this form: rootimg.cpio.gz of SIZE, unpacked N MiB",
        text,
    )
    text = re.sub(
        r"in \d+s(, emulated)?, rootimg|needs \d+ MiB",
        lambda match: re.sub(r"\d+", "N", match.group()).replace(", emulated", ""),
        text,
    )
    text = re.sub(r"cpio\.gz \d+s", "cpio.gz TIME", text)
    text = re.sub(r"^(.*not work: it is emulated|Warning: .*)\n", "", text, flags=re.MULTILINE)
    text = re.sub(r'"accelerator": "\w+"', '"accelerator": "HOW"', text)
    text = re.sub(r"\bon \S+, with", "on HOST, with", text)
    text = re.sub(r"\(uid 0 on \S+\)", "(uid 0 on HOST)", text)
    text = re.sub(r'"(sha256|id|inputs|version)": "[0-9a-f]{64}"', r'"\1": "SHA256"', text)
    text = re.sub(
        r'"(seconds|size|memory|needed|unpacked|packages(?:_\w+)?|bytes(?:_\w+)?)": [\d.e-]+', r'"\1": N', text
    )
    text = re.sub(r'"(host|real)": "[^"]*"', r'"\1": "HOST"', text)
    text = re.sub(r'"programs": \{[^}]*\}', '"programs": PROGRAMS', text)
    text = re.sub(r"line \d+", "line N", text)
    # The width of a column goes by what was replaced above.
    return re.sub(r"(?<=\S) {3,}", "  ", text)


def check_golden(name: str, text: str, quickstart: Quickstart) -> None:
    path = GOLDEN / name
    found = normal(text, quickstart)
    if os.environ.get("AVS_UPDATE_GOLDEN") == "1":
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(found, encoding="utf-8")
    assert found == path.read_text(encoding="utf-8")


def test_quickstart_shows_all_it_did(quickstart: Quickstart) -> None:
    check_golden("quickstart.txt", quickstart.script.stdout, quickstart)


@pytest.mark.parametrize("mode", ["list-tags", "show", "steps", "env"])
@pytest.mark.parametrize("form", ["txt", "json"])
def test_modes_that_only_read(quickstart: Quickstart, mode: str, form: str) -> None:
    words = ["-c", mode, "example.prod"] + (["--json"] if form == "json" else [])
    done = quickstart.avsimage(*words)
    assert (done.returncode, done.stderr) == (0, "")
    if form == "json":
        json.loads(done.stdout)
    check_golden(f"{mode}.{form}", done.stdout, quickstart)


def test_tag_and_pack_answer_in_json(quickstart: Quickstart) -> None:
    tagged = quickstart.avsimage("-c", "tag", "example.prod", "-t", "by-json", "-m", "why", "--json")
    assert json.loads(tagged.stdout)["name"] == "by-json"
    check_golden("tag.json", tagged.stdout, quickstart)
    packed = quickstart.avsimage("-c", "pack", "example.prod", "-t", "by-json", "-x", "example.test", "--json")
    assert json.loads(packed.stdout)["source"] == IMAGE
    check_golden("pack.json", packed.stdout, quickstart)


def test_it_has_booted(quickstart: Quickstart) -> None:
    """To the login prompt, in less than 4 minutes without KVM; that is known of the tag."""
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("not installed: qemu-system-x86")
    tag = json.loads(quickstart.avsimage("-c", "list-tags", "example.prod", "--json").stdout)["tags"][0]
    (boot,) = tag["boots"]
    assert (boot["result"], boot["archive"], boot["units"]) == ("booted", "rootimg.cpio.gz", "")
    assert re.fullmatch(r"\S+ login:", boot["why"])
    assert boot["seconds"] < 240
    assert boot["memory"] == boot["needed"] < 1536
    log = (quickstart.top / "logs" / IMAGE / "boot.log").read_text()
    assert "Linux version" in log
    assert "Reached target getty.target" in log


def tiny_boot(quickstart: Quickstart, top: Path, guest: Guest) -> Outcome:
    """A boot of the quick start's kernel with something that is smaller than its image."""
    return booting.boot(guest, Terms("", (), 120), top / "boot.log", Progress(io.StringIO()))


def test_a_set_whose_initrd_fetches_the_archive(quickstart: Quickstart, tmp_path: Path) -> None:
    """As that of xCAT does: by the URL that the kernel is told, from the private network, with modules of the image's kernel."""
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("not installed: qemu-system-x86")
    root = quickstart.tree / "rootimg"
    up = tiny.write(tmp_path / "up", {}, tiny.PROMPT)
    served = tmp_path / "set"
    served.mkdir()
    subprocess.run(
        ["mksquashfs", str(up), str(served / "rootimg.sfs"), "-quiet", "-no-progress"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    loaded = tiny.modules(root, (*tiny.NETWORK, *tiny.ROOTS))
    initrd = tiny.packed(tiny.write(tmp_path / "initrd", loaded, tiny.FETCH, "init"), tmp_path / "initrd.gz")
    plan = arguments.by_xcat([], "/install/netboot/x/rootimg.sfs", machine.KINDS["x86_64"], "")
    guest = Guest("x86_64", quickstart.tree / "kernel", initrd, append=plan.append, memory=256, served=served)
    done = tiny_boot(quickstart, tmp_path, guest)
    assert (done.verdict.kind, done.verdict.words) == (judge.BOOTED, "tiny login:"), done
    assert "Getting http://10.0.2.100:80/install/netboot/x/rootimg.sfs..." in (tmp_path / "boot.log").read_text()


def test_an_image_without_init(quickstart: Quickstart, tmp_path: Path) -> None:
    """One of those that are broken on purpose; the consoles of others are recorded, in tests/data/consoles."""
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("not installed: qemu-system-x86")
    initrd = tiny.packed(tiny.write(tmp_path / "none", {}), tmp_path / "none.gz")
    plan = arguments.alone("cpio", machine.KINDS["x86_64"], "")
    guest = Guest("x86_64", quickstart.tree / "kernel", initrd, append=plan.append, memory=256)
    done = tiny_boot(quickstart, tmp_path, guest)
    assert done.verdict.kind == judge.NO_INIT, done
    assert any("panic" in line for line in done.last)


def kind_of(path: Path) -> tuple[object, ...]:
    """All that the issue asks for, read with lstat alone: type, mode, owner, link target, device, content."""
    status = path.lstat()
    what: tuple[object, ...] = (stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
    if path.is_symlink():
        return (stat.S_IFLNK, status.st_uid, status.st_gid, os.readlink(path))
    if path.is_file():
        return (*what, hashlib.md5(path.read_bytes()).hexdigest(), status.st_mtime_ns)
    return (*what, status.st_rdev)


def everything(top: Path) -> dict[str, tuple[object, ...]]:
    found = {}
    for directory, names, files in os.walk(top):
        for name in names + files:
            path = Path(directory, name)
            found[str(path.relative_to(top))] = kind_of(path)
    return found


def test_the_checkout_of_the_tag_is_the_built_tree(quickstart: Quickstart, tmp_path: Path) -> None:
    """FSVS alone, without this program's help, gives back types, modes, owners, targets and contents."""
    url = f"file://{quickstart.top}/repo/netboot/debian12/x86_64/example.prod/tags"
    name = quickstart.run("svn", "ls", url).stdout.split("/")[0]
    (tmp_path / "tree").mkdir()
    env = {**os.environ, "FSVS_CONF": str(tmp_path), "FSVS_WAA": str(tmp_path), "LC_ALL": "C.UTF-8"}
    subprocess.run(["fsvs", "-q", "export", f"{url}/{name}"], cwd=tmp_path / "tree", env=env, check=True)
    stored, built = everything(tmp_path / "tree/rootimg"), everything(quickstart.tree / "rootimg")
    assert len(built) > 10000
    for facts in (stored, built):  # FSVS keeps times to the microsecond
        for path, fact in facts.items():
            if len(fact) == 6 and isinstance(fact[5], int):
                facts[path] = (*fact[:5], fact[5] // 1000)
    assert {path for path in stored.keys() | built.keys() if stored.get(path) != built.get(path)} == set()
    assert any(fact[0] == stat.S_IFCHR for fact in built.values())


def test_what_is_served_is_what_was_built(quickstart: Quickstart, tmp_path: Path) -> None:
    for profile in ("example.prod", "example.test"):
        served = quickstart.served(profile)
        assert served.is_symlink()
        assert sorted(os.listdir(served)) == ["avs.json", "initrd-stateless.gz", "kernel", "rootimg.cpio.gz"]
        assert (served / "kernel").read_bytes() == (quickstart.tree / "kernel").read_bytes()
        assert gzip.decompress((served / "initrd-stateless.gz").read_bytes())[:6] == b"070701"
        assert {oct(path.stat().st_mode & 0o777) for path in served.iterdir()} == {"0o644"}
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    archive = quickstart.served("example.prod") / "rootimg.cpio.gz"
    subprocess.run(["sh", "-c", f"gzip -dc {archive} | cpio -idm --quiet"], cwd=unpacked, check=True)
    packed, built = everything(unpacked), everything(quickstart.tree / "rootimg")
    left_out = sorted(built.keys() - packed.keys())
    assert left_out
    assert all(re.match(r"usr/share/(doc|man|info)/|boot/initrd\.img", path) for path in left_out)
    assert packed.keys() - built.keys() == {
        "etc/avs-release", "usr/lib/avs", "usr/lib/avs/xattrs", "usr/lib/avs/set-xattrs",
        "etc/systemd/system/avs-xattrs.service", "etc/systemd/system/sysinit.target.d",
        "etc/systemd/system/sysinit.target.d/avs-xattrs.conf",
    }  # fmt: skip
    assert {path for path in packed.keys() & built.keys() if packed[path][:5] != built[path][:5]} == set()
    # What no kernel takes out of an archive: it is set by what runs at boot.
    assert os.listxattr(unpacked / "usr/bin/ping") == []
    subprocess.run(["chroot", str(unpacked), "/bin/sh", "/usr/lib/avs/set-xattrs"], check=True)
    rich = xattrs(quickstart.tree / "rootimg")
    assert "security.capability" in rich["usr/bin/ping"]
    assert xattrs(unpacked) == rich


def xattrs(top: Path) -> dict[str, dict[str, bytes]]:
    found = {}
    for path in top.rglob("*"):
        names = os.listxattr(path, follow_symlinks=False)
        if names:
            found[str(path.relative_to(top))] = {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
    return found


def test_a_node_can_be_logged_into(quickstart: Quickstart) -> None:
    """By the key of who ran it; and each node makes its host keys, of which the image has none."""
    root = quickstart.tree / "rootimg"
    assert list((root / "etc/ssh").glob("ssh_host_*")) == []
    units = root / "etc/systemd/system"
    for name in ("ssh.service", "avs-ssh-host-keys.service"):
        assert (units / "multi-user.target.wants" / name).is_symlink()
    assert (root / "root/.ssh/authorized_keys").read_text() == (quickstart.top / "ssh/id_ed25519.pub").read_text()
    assert (quickstart.top / "ssh/id_ed25519").stat().st_mode & 0o777 == 0o600
    words = ["systemd-analyze", f"--root={root}", "--man=no", "verify", "avs-ssh-host-keys.service"]
    assert quickstart.run(*words).returncode == 0
    assert (units / "multi-user.target.wants/systemd-networkd.service").is_symlink()
    assert "DHCP=yes" in (root / "etc/systemd/network/80-avs-dhcp.network").read_text()


def test_packing_twice_gives_the_same_bytes(quickstart: Quickstart) -> None:
    name = json.loads(quickstart.avsimage("-c", "list-tags", "example.prod", "--json").stdout)["tags"][0]["name"]
    archive = quickstart.served("example.prod") / "rootimg.cpio.gz"
    first = hashlib.sha256(archive.read_bytes()).hexdigest()  # by the script
    at = archive.stat().st_mtime_ns
    assert quickstart.avsimage("-c", "pack", "example.prod", "-t", name, "--force").returncode == 0
    assert archive.stat().st_mtime_ns > at, "it was not packed again"
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == first


def test_a_rebuild_that_changes_nothing_makes_no_revision(quickstart: Quickstart) -> None:
    before = quickstart.run("svnlook", "youngest", str(quickstart.top / "repo")).stdout
    done = quickstart.avsimage("-c", "create", "example.prod", "-m", "again")
    assert done.returncode == 0, done.stderr
    assert "Nothing changed since revision 2 of " in done.stdout
    assert quickstart.run("svnlook", "youngest", str(quickstart.top / "repo")).stdout == before
    check_golden("create.txt", done.stdout, quickstart)
    resumed = quickstart.avsimage("-c", "create", "example.prod", "-b", "-m", "again", "--json")
    assert json.loads(resumed.stdout)["changed"] is False
    check_golden("create.json", resumed.stdout, quickstart)


@pytest.mark.parametrize(
    ("release", "named"),
    [("ID=rocky\nVERSION_ID=9.4\n", "this machine is rocky9.4\n"), ("ID=debian\n", "this machine is debian\n"), ("", "unknown\n")],
)  # fmt: skip
def test_a_clear_word_elsewhere(tmp_path: Path, release: str, named: str) -> None:
    (tmp_path / "os-release").write_text(release)
    words = ["unshare", "--mount", "sh", "-c", 'mount --bind "$1" /etc/os-release && exec "$2"', "sh"]
    words += [str(tmp_path / "os-release"), str(TOP / "quickstart")]
    env = {**os.environ, "AVS_QUICKSTART": str(tmp_path / "q")}
    done = subprocess.run(words, env=env, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: ./quickstart is for Debian 12 and 13 and Ubuntu 22.04 and 24.04; ")
    assert named in done.stderr
    assert not (tmp_path / "q").exists()


def test_clean_removes_all_of_it(quickstart: Quickstart) -> None:
    assert quickstart.run(str(TOP / "quickstart"), "clean").returncode == 0
    assert not quickstart.top.exists()
