"""Find in a tree what nobody else should have: by kind and path. What is read of a file is never kept."""

from __future__ import annotations

import re
import stat
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Optional

from xcat_avs.errors import AvsError
from xcat_avs.system.descent import Descent, open_regular, read_file
from xcat_avs.tree import scan
from xcat_avs.tree.inside import inside
from xcat_avs.tree.packages import shipped
from xcat_avs.tree.patterns import lies_in, matches

# What each kind is, the worst first.
KINDS = {
    "empty-password": "an account that anyone can log in to",
    "password-hash": "the hash of a password, in use or locked",
    "private-key": "a private key",
    "ssh-host-key": "a host key of sshd, the same on all nodes",
    "munge-key": "the key of munge",
    "kerberos-credentials": "a keytab, a ticket or a KDC's database",
    "cloud-credentials": "the login of a cloud",
    "container-credentials": "the login of a registry or of Kubernetes",
    "client-credentials": "the login that a client keeps",
    "repository-password": "a password of a repository or proxy",
    "shell-history": "what somebody has typed",
    "random-seed": "a seed of random numbers, the same on all nodes",
    "machine-id": "an identity that all nodes would share",
    "builder-hostname": "the name of the machine that built the image",
    "missing-machine-id": "systemd takes each boot for the first one; an empty file is right",
}
HARMLESS = ("missing-machine-id",)  # is told and refuses nothing
LARGEST = 1 << 17  # bytes; what is larger is no key and no configuration
LARGEST_LIST = 1 << 25  # of a list of accounts, which may be long

# A hash of crypt(3): $id$..., the DES form, and its extended form.
HASH = re.compile(rb"\$[^$]+\$.+|_[./0-9A-Za-z]{19}|[./0-9A-Za-z]{13}")
NO_PASSWORD = (b"", b"x", b"NP", b"LK", b"LK*")  # of a locked account, after its ! and *
ACCOUNTS = ("etc/passwd", "etc/shadow", "etc/group", "etc/gshadow")
EMPTY_OPENS = ("etc/passwd", "etc/shadow")  # an empty field of the others locks
COPIES = re.compile(
    r"(?:etc/(?:passwd|shadow|g?shadow|group)(?:[-~].*|\..+)|var/backups/(?:passwd|g?shadow|group)\..+)"
)
HOSTNAME = re.compile(rb"^(?:HOSTNAME=)?[\"']?([A-Za-z0-9][A-Za-z0-9.-]*)[\"']?\s*$", re.MULTILINE)
NO_HOSTS = {"", "localhost", "localhost.localdomain"}  # what a machine is called that nobody has named
SYSTEMD = ("usr/lib/systemd/systemd", "lib/systemd/systemd")

VALUE = rb"[ \t]*[=:][ \t]*[\"']?[^\s\"'#;]"
PASSWORD = re.compile(rb"^[ \t]*[\"']?\w*password" + VALUE, re.MULTILINE | re.IGNORECASE)
# In an URL, or as auth.conf of apt has it; comments are examples.
REPOSITORY = re.compile(
    rb"^(?![ \t]*(?:#|;|//)).*(?:://[^\s/:@]*:[^\s/@]+@|\bpassword[ \t]+\S)|" + PASSWORD.pattern,
    re.MULTILINE | re.IGNORECASE,
)
LOGIN = re.compile(rb"\"(?:auth|identitytoken|registrytoken|password)\"\s*:\s*\"[^\"]")
TOKEN = re.compile(rb"^\s*(?:- )?(?:client-key-data|token|password)\s*:\s*\S", re.MULTILINE)
NPM = re.compile(rb"_(?:authToken|auth|password)\s*=\s*\S")
NETWORK = re.compile(rb"^[ \t]*(?:psk|password|[\w-]*-password|wep-key\d)[ \t]*=[ \t]*\S", re.MULTILINE)
WIREGUARD = re.compile(rb"^\s*(?:PrivateKey|PresharedKey)\s*=\s*[A-Za-z0-9+/]{43}=", re.MULTILINE)
# Kind, what the content must have (None: anything), and patterns of paths as patterns.lies_in takes them.
RULES: tuple[tuple[str, Optional[re.Pattern[bytes]], str], ...] = (
    ("ssh-host-key", None, "etc/ssh/ssh_host_*_key"),
    ("private-key", None, "**/private-keys-v1.d/*.key **/.gnupg/secring.gpg"),
    ("private-key", WIREGUARD, "etc/wireguard/* etc/systemd/network/*.netdev"),
    ("munge-key", None, "**/munge/munge.key"),
    ("kerberos-credentials", None, "**/*.keytab **/krb5cc_* **/krb5kdc/.k5.* **/krb5kdc/stash **/krb5kdc/principal"),
    ("cloud-credentials", None,
     "**/.aws/credentials **/.azure/accessTokens.json **/.azure/msal_token_cache* **/.azure/service_principal_entries* "
     "**/gcloud/credentials.db **/gcloud/access_tokens.db **/gcloud/application_default_credentials.json "
     "**/gcloud/legacy_credentials/*/adc.json **/.boto **/.s3cfg **/.passwd-s3fs **/rclone/rclone.conf **/openstack/secure.yaml"),
    ("cloud-credentials", PASSWORD, "**/openstack/clouds.yaml"),
    ("cloud-credentials", re.compile(rb"\"private_key\"\s*:\s*\"-----BEGIN"), "**/*.json"),
    ("container-credentials", LOGIN, "**/.docker/config.json **/.dockercfg **/containers/auth.json var/lib/kubelet/config.json"),
    ("container-credentials", TOKEN, "**/.kube/config etc/kubernetes/*.conf etc/rancher/*/*.yaml"),
    ("client-credentials", None,
     "**/.netrc **/.pgpass **/.git-credentials **/.config/git/credentials **/.mylogin.cnf **/.vault-token "
     "**/.subversion/auth/svn.simple/* var/lib/systemd/credential.secret"),
    ("client-credentials", PASSWORD, "**/.my.cnf **/.pypirc etc/mysql/debian.cnf"),
    ("client-credentials", NPM, "**/.npmrc"),
    ("client-credentials", NETWORK, "etc/NetworkManager/system-connections/* etc/wpa_supplicant/*"),
    ("repository-password", REPOSITORY,
     "etc/yum.conf etc/dnf/dnf.conf etc/yum.repos.d/* etc/apt/sources.list etc/apt/sources.list.d/* etc/apt/apt.conf "
     "etc/apt/apt.conf.d/* etc/apt/auth.conf etc/apt/auth.conf.d/* etc/zypp/repos.d/* etc/zypp/credentials.d/* "
     "etc/rhsm/rhsm.conf **/pip.conf **/.pip/pip.conf **/.condarc etc/environment etc/wgetrc **/.wgetrc **/.curlrc "
     "etc/subversion/servers"),
    ("shell-history", None,
     "**/.bash_history **/.zsh_history **/.sh_history **/.ash_history **/.ksh_history **/.history **/.python_history "
     "**/.mysql_history **/.psql_history **/.sqlite_history **/.rediscli_history **/fish/fish_history"),
    ("random-seed", None, "var/lib/systemd/random-seed var/lib/random-seed var/lib/urandom/random-seed **/loader/random-seed"),
)  # fmt: skip
# Below these only packages put files, and what has the name of a key is looked at alone.
PACKAGES = re.compile(r"(?:usr/(?!local/|etc/)|lib(?:32|64|x32)?/|s?bin/)")
LIKELY = re.compile(r"id_(?:rsa|dsa|ecdsa|ed25519)\w*|.*\.(?:pem|key|ppk|p12|pfx)|.*[-_]key")
# What packages, installed by whatever, bring to be read or tried.
SAMPLE = re.compile(
    r"(?:^|.*/)(?:usr|opt|(?<!var/)lib)/(?:.*/)?"
    r"(?:docs?|examples?|samples?|demos?|tests?|testing|testdata|test[-_]data|selftests?|fixtures|man|info)/.*"
)
MARK = re.compile(rb"PRIVATE KEY|PuTTY-User-Key-File|AGE-SECRET-KEY")
# With what follows the line: in prose and in programs that line stands alone.
KEY = re.compile(
    rb"^[ \t]*-{4,5} ?BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)? ?-{4,5}[ \t]*\r?\n"
    rb"(?:[A-Za-z-]+: [^\n]*\n|[ \t]*\r?\n)*[ \t]*[A-Za-z0-9+/=]{16}"
    rb"|^PuTTY-User-Key-File-\d: |^SSH PRIVATE KEY FILE FORMAT|^AGE-SECRET-KEY-1[0-9A-Z]{20}",
    re.MULTILINE,
)
CONTAINERS = (".p12", ".pfx")  # PKCS #12, whose first byte is that of an ASN.1 sequence
SEQUENCE = b"\x30"


class Finding(NamedTuple):
    """A secret in a tree. path: from the top of the image; addon: the add-on that brings it, or "".

    allowed: why it may be there, or ""; by: who says so.
    """

    kind: str
    path: str
    addon: str = ""
    allowed: str = ""
    by: str = ""


def find(root: Path, hosts: Collection[str] = (), addon: str = "") -> list[Finding]:
    """The secrets in a tree, the worst first. hosts: names of machines that may have built it.

    addon: the name of the add-on whose files these are. Links are followed within the tree only.
    """
    found = {Finding(kind, path, addon) for kind, path in (*_accounts(root), *_identity(root, hosts, not addon))}
    with Descent(str(root)) as tree:
        for path, status in scan.walk(str(root)):
            if stat.S_ISREG(status.st_mode) and status.st_size:
                kinds = _file(tree, path, status.st_size)
                if kinds and not (PACKAGES.match(path) and shipped(root, path, _read(tree, path))):
                    found |= {Finding(kind, path, addon) for kind in kinds}
    order = list(KINDS)
    return sorted(found, key=lambda item: (order.index(item.kind), item.path))


def find_in_version(tree: Path, hosts: Collection[str]) -> list[Finding]:
    """The secrets of a version: of its image, then of each of its add-ons."""
    found = find(tree / "rootimg", hosts) if (tree / "rootimg").is_dir() else []
    for top in sorted((tree / "addons").glob("*/rootimg")):
        if top.is_dir() and not (top.is_symlink() or top.parent.is_symlink()):
            found += find(top, hosts, top.parent.name)
    return found


def passwords(data: bytes, empty_opens: bool) -> set[str]:
    """The kinds of what the second field of a passwd, shadow, group or gshadow file holds."""
    found = set()
    for line in data.split(b"\n"):
        name, colon, rest = line.partition(b":")
        if not colon or not name or name[:1] in b"+-#":  # entries of NIS
            continue
        field = rest.partition(b":")[0]
        locked = field[:1] in (b"!", b"*")
        password = field.lstrip(b"!*")
        if not field:
            found |= {"empty-password"} if empty_opens else set()
        elif password not in NO_PASSWORD and (not locked or HASH.fullmatch(password)):
            found.add("password-hash")
    return found


def _accounts(root: Path) -> Iterator[tuple[str, str]]:
    for path in ACCOUNTS:
        for kind in passwords(_content(root, path) or b"", path in EMPTY_OPENS):
            yield kind, path


def _identity(root: Path, hosts: Collection[str], whole: bool) -> Iterator[tuple[str, str]]:
    """whole: this is an image, in which something may be missing."""
    for path in ("etc/machine-id", "var/lib/dbus/machine-id"):
        if (_content(root, path) or b"").strip() not in (b"", b"uninitialized"):
            yield "machine-id", path
    if whole and _content(root, "etc/machine-id") is None and any(_content(root, path) is not None for path in SYSTEMD):
        yield "missing-machine-id", "etc/machine-id"
    wanted = {name.lower() for host in hosts for name in (host, host.partition(".")[0])} - NO_HOSTS
    for path in ("etc/hostname", "etc/sysconfig/network"):
        names = {name.decode().lower() for name in HOSTNAME.findall(_content(root, path) or b"")}
        if wanted & (names | {name.partition(".")[0] for name in names}):
            yield "builder-hostname", path


def _content(root: Path, path: str) -> Optional[bytes]:
    """What a file of the image holds, by way of the image's own links; None where there is none."""
    with suppress(AvsError, OSError):
        return read_file(str(root), str(inside(root, path, follow=True).relative_to(root)), LARGEST_LIST)
    return None


def _file(tree: Descent, path: str, size: int) -> Collection[str]:
    """The kinds of secrets that a file holds."""
    name = path.rpartition("/")[2]
    packaged = PACKAGES.match(path)
    if packaged and not LIKELY.fullmatch(name):
        return ()
    rules = () if packaged else [rule for rule in _rules(name) if lies_in(path, rule[2])]
    sure = [kind for kind, content, _ in rules if content is None]
    if sure:
        return sure[:1]
    if size > LARGEST or SAMPLE.fullmatch(path):
        return ()
    data = _read(tree, path)
    if COPIES.fullmatch(path):
        return passwords(data, False)
    return [kind for kind, content, _ in rules if content and content.search(data)] or _key(name, data)


def _key(name: str, data: bytes) -> Collection[str]:
    contained = name.endswith(CONTAINERS) and data.startswith(SEQUENCE)
    return ("private-key",) if contained or (MARK.search(data) and KEY.search(data)) else ()


def _read(tree: Descent, path: str) -> bytes:
    """A file that may be gone by now, or be another one: then nothing of it is known."""
    with suppress(OSError):
        directory, name = tree.parent(path)
        with open(open_regular(name, directory), "rb", buffering=0) as stream:
            return stream.read(LARGEST)
    return b""


Rule = tuple[str, Optional[re.Pattern[bytes]], str]  # with one pattern
LITERAL: dict[str, list[Rule]] = {}  # last part of a pattern -> the rules
GLOBS: list[tuple[str, Rule]] = []  # the same of those whose last part is a pattern
for _kind, _needed, _patterns in RULES:
    for _pattern in _patterns.split():
        _last = _pattern.rpartition("/")[2]
        if "*" in _last:
            GLOBS.append((_last, (_kind, _needed, _pattern)))
        else:
            LITERAL.setdefault(_last, []).append((_kind, _needed, _pattern))


def _rules(name: str) -> Iterable[Rule]:
    """The rules that a file of that name may fall under."""
    yield from LITERAL.get(name, ())
    yield from (rule for last, rule in GLOBS if last == "*" or matches(name, last))
