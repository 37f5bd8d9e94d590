"""The programs of xCAT that avsimage runs, as far as it runs them, in one module.

State is below XCATROOT/fake: tables.json (osimage, node, site, passwd), knobs.json (what goes wrong),
calls.jsonl (who was called with what), nodes/NODE (what a node answers to xdsh).
Everything that the recorded runs of a real xCAT show is done the same way, the unpleasant parts included.
"""

from __future__ import annotations

import fcntl
import fnmatch
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn, Optional

# lsdef is started more often than anything else in these tests: what it does not need is imported where it is used.
LOCKS = Path("/var/lock/xcat")
HOST = "mgmt"
VERSION = "Version 2.19.0 (git commit 7733d16f8de0fc36b80638c04a7033931fa13304)"
LINUXIMAGE = (
    "template", "boottarget", "addkcmdline", "pkglist", "pkgdir", "otherpkglist", "otherpkgdir", "exlist", "postinstall", "rootimgdir",
    "kerneldir", "nodebootif", "otherifce", "netdrivers", "kernelver", "krpmver", "permission", "dump", "crashkernelsize", "partitionfile",
    "driverupdatesrc", "gpgcheck",
)  # fmt: skip
OSIMAGE = (
    "groups", "profile", "imagetype", "description", "provmethod", "rootfstype", "nfsrootopts", "osdistroname", "osupdatename", "cfmdir",
    "osname", "osvers", "osarch", "synclists", "postscripts", "postbootscripts", "serverrole", "isdeletable", "kitcomponents", "environvar",
    "usercomment", *LINUXIMAGE,
)  # fmt: skip
NODE = (
    "arch", "bmc", "bmcpassword", "bmcusername", "currstate", "groups", "initrd", "ip", "kcmdline", "kernel", "mac", "mgt", "netboot", "os",
    "postbootscripts", "postscripts", "profile", "provmethod", "serialport", "servicenode", "status", "tftpserver", "xcatmaster",
)  # fmt: skip
VALID = {"osimage": OSIMAGE, "node": NODE}
TYPES = ("osimage", "node", "site", "kit", "group", "network", "policy", "passwd")
FAMILIES = ("rocky", "alma", "rh", "centos", "ol", "SL", "ubuntu", "debian", "sles")
ARCHIVES = ("rootimg.cpio.gz", "rootimg.cpio.xz", "rootimg.tar.gz", "rootimg.tar.xz", "rootimg.sfs", "rootimg.gz")
STATELITE = ("./etc/init.d/statelite", "./etc/rc.sysinit.backup", "./.statelite*", "./.default*", "./.statebackup*")
PACKIMAGE_USAGE = """\
Usage:
   packimage [-m| --method=cpio|tar] [-c| --compress=gzip|pigz|xz] [--nosyncfiles] <imagename>
   packimage [-h| --help]
   packimage [-v| --version]
"""
NODESET_USAGE = """\
Usage:
   Common:
      nodeset [-h|--help|-v|--version]
      nodeset <noderange> [shell|boot|runcmd=bmcsetup|osimage[=<imagename>]|offline|shutdown|stat [-a]]
"""

Table = dict[str, dict[str, str]]


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


class Failure(Exception):
    """An `Error:` and the exit code 1."""


class State:
    """The tables and the knobs of one fake xCAT, as one run of a program sees them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.fake = root / "fake"
        self.tables: dict[str, Any] = json.loads((self.fake / "tables.json").read_text(encoding="utf-8"))
        self.knobs: dict[str, Any] = json.loads((self.fake / "knobs.json").read_text(encoding="utf-8"))

    @property
    def osimages(self) -> Table:
        table: Table = self.tables["osimage"]
        return table

    @property
    def nodes(self) -> Table:
        table: Table = self.tables["node"]
        return table

    @property
    def site(self) -> dict[str, str]:
        table: dict[str, str] = self.tables["site"]
        return table

    @property
    def bypass(self) -> bool:
        return os.environ.get("XCATBYPASS", "") not in ("", "0")

    @property
    def tag(self) -> str:
        """What stands before a message of the daemon; without the daemon nothing does."""
        return "" if self.bypass else f"[{HOST}]: "

    def knob(self, program: str) -> dict[str, Any]:
        found: dict[str, Any] = self.knobs.get(program, {})
        return found

    def save(self) -> None:
        write_json(self.fake / "tables.json", self.tables)

    def error(self, text: str) -> None:
        complain(f"Error: {self.tag}{text}")


def write_json(path: Path, value: object) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value, indent=1), encoding="utf-8")
    os.replace(temporary, path)


def main() -> int:
    """Be the program that this was called as."""
    # The links of a fake XCATROOT are not followed: they say whose program this is.
    here = Path(os.path.abspath(sys.argv[0]))
    if "netboot" in here.parts:
        root = here.parents[4]
        program = "inner genimage"
    else:
        root = Path(os.environ.get("XCATROOT") or here.parent.parent)
        program = here.name
    state = State(root)
    record = {"program": program, "argv": sys.argv[1:], "bypass": state.bypass, "cwd": os.getcwd(), "time": time.time()}
    with open(state.fake / "calls.jsonl", "a", encoding="utf-8") as stream:
        stream.write(json.dumps(record) + "\n")
    if program not in ("inner genimage", "genimage"):  # these read standard input only where they ask
        read_stdin()
    known: Mapping[str, Callable[[State, list[str]], int]] = {
        "lsdef": lsdef, "chdef": chdef, "genimage": genimage, "inner genimage": inner_genimage, "packimage": packimage,
        "nodeset": nodeset, "xdsh": xdsh,
    }  # fmt: skip
    try:
        if program not in ("inner genimage", "genimage"):
            connect(state, program)
        return known[program](state, sys.argv[1:])
    except Failure as err:
        state.error(str(err))
        return 1


def read_stdin() -> None:
    """The real client reads its standard input to the end where it is no terminal, and so hangs on an open pipe."""
    if sys.stdin is not None and not sys.stdin.isatty():
        sys.stdin.buffer.read()


def connect(state: State, program: str) -> None:
    """What a client says that cannot reach the daemon, or may not."""
    mode = state.knobs.get("daemon", "up")
    user = state.knobs.get("user", "root")
    if state.knob(program).get("hang"):
        time.sleep(3600)
    if state.bypass:
        if state.knob(program).get("bypass_hangs"):
            time.sleep(3600)
        if state.knob(program).get("bypass_fails"):
            raise Failure("Unable to open the database")
        if user != "root":
            say(f"WARNING: Only allow root to run XCATBYPASS mode, your current user ID is {user}.")
            sys.exit(0)
        if state.knobs.get("noise"):
            say(f"Error loading module {state.root}/lib/perl/xCAT_plugin/kvm.pm  ...skipping")
        return
    client = f"at {state.root}/lib/perl/xCAT/Client.pm line"
    address = os.environ.get("XCATHOST") or "localhost:3001"
    if mode == "badhost" or address.split(":")[0].endswith(".invalid"):
        address = "nosuchhost.invalid:3001" if mode == "badhost" else address
        refused(address, f"IO::Socket::INET: Bad hostname '{address}' {client} 248.", 22)
    if mode == "down" or address != "localhost:3001":
        refused(address, f"IO::Socket::INET: connect: Connection refused {client} 248.", 111)
    if mode == "badcert":
        reason = f"SSL connect attempt failed error:0A000086:SSL routines::certificate verify failed {client} 282."
        refused(address, reason, 255)
    if mode == "foreigncert":  # the client's certificate is of another authority: xcatd ends the connection
        complain("ERROR/WARNING: communication with the xCAT server seems to have been ended prematurely")
        sys.exit(1)
    if mode == "nocert":
        say(
            f"warning: the client certificates under /root/.xcat/ are not setup correctly, please run '{state.root}/share/xcat/scripts/"
            "setup-local-client.sh ' as 'root' to generate the client certificates; otherwise, the SSL connection between xcat client and xcatd "
            "will be setup without certificate verification and open to Man-In-The-Middle attacks."
        )
    if mode in ("denied", "nocert"):
        complain("Error: Permission denied for request")
        sys.exit(1)
    if mode == "garbage" and program == "lsdef":
        say("<html><body>502 Bad Gateway</body></html>")
        sys.exit(0)
    if mode == "hang":
        time.sleep(3600)


def refused(address: str, reason: str, code: int) -> NoReturn:
    say(f"Unable to open socket connection to xcatd daemon on {address}.")
    say("Verify that the xcatd daemon is running and that your SSL setup is correct.")
    complain(f"Connection failure: {reason}")
    sys.exit(code)


def unknown(what: str) -> NoReturn:
    """Nothing was recorded of this: say so, loudly, instead of inventing it."""
    complain(f"the stand-in for xCAT does not know {what}")
    sys.exit(99)


# lsdef, chdef


def lsdef(state: State, argv: list[str]) -> int:
    kind, names, where = "node", [], []
    attributes: Optional[list[str]] = None
    long = compact = stanza = short = typed = False
    words = list(argv)
    while words:
        word = words.pop(0)
        if word == "-t":
            kind, typed = words.pop(0), True
        elif word == "-o":
            names += words.pop(0).split(",")
        elif word == "-i":
            attributes = words.pop(0).split(",")
        elif word == "-w":
            where.append(words.pop(0))
        elif word in ("-l", "-c", "-z", "-s"):
            long, compact = long or word == "-l", compact or word == "-c"
            stanza, short = stanza or word == "-z", short or word == "-s"
        elif word == "-v":
            say(f"lsdef - {VERSION}")
            return 0
        elif word == "--":
            names += words
            break
        elif word in ("-a", "-h", "-S", "-V", "-x", "--nics", "--osimage", "--template"):
            unknown(f"lsdef {word}")
        elif word.startswith("-"):
            say("\nUsage: lsdef - List xCAT data object definitions.\n")
            state.error("Invalid option..")
            return 1
        elif word:
            names += [name for item in word.split(",") for name in ([item] if typed else expand(state, item) or [item])]
    if kind not in TYPES:
        complain(f"Error: {state.tag}\nType '{kind}' is not a valid xCAT object type.")
        return 1
    if compact and attributes is None:
        say("\nUsage: lsdef - List xCAT data object definitions.\n")
        state.error("The flags '-c' and '-i' must be used together.")
        return 1
    table: Table = {"clustersite": state.site} if kind == "site" else state.tables.get(kind, {})
    if not names and not where and not table:
        say("Could not find any object definitions to display.")
        return 0
    code = 0
    wanted = sorted(set(names)) or sorted(table)
    shown = []
    for name in wanted:
        if name in table and selected(table[name], where):
            shown.append(name)
        elif name not in table:
            problem = _no_such(name, kind, table)
            if problem:
                state.error(problem)
                code = 1
            else:
                shown.append(name)
    # What the real one takes for each object, which the daemon spends, not the client.
    time.sleep(
        float(state.knob("lsdef").get("seconds", 0)) + float(state.knob("lsdef").get(f"per_{kind}", 0)) * len(shown)
    )
    lines: list[str] = []
    details = bool(long or names or attributes is not None or stanza) and not short
    bad = [name for name in attributes or [] if kind in VALID and name not in VALID[kind]]
    for name in bad:
        state.error(f"'{name}' is not a valid attribute name for an object type of '{kind}'.")
        code = 1
    for name in shown:
        if not details:
            lines.append(f"{name}  ({kind})")
            continue
        if stanza:
            lines += ["", f"{name}:", f"    objtype={kind}"]
        elif not compact:
            lines.append(f"Object name: {name}")
        lines += _values(state, table, name, attributes, f"{name}: " if compact else "    ", kind)
    if stanza and (lines or not (names or where)):
        lines.insert(0, "# <xCAT data object stanza file>")
    for line in lines or ["No object definitions have been found"]:
        say(line)
    return code


def _no_such(name: str, kind: str, table: Table) -> str:
    """Why a name is refused; a name is a regular expression, and one that matches any object is none."""
    try:
        found = any(re.fullmatch(name, other) for other in table)
    except re.error:
        return f"Invalid '{name}' name, check the object named '{name}' of type '{kind}' syntax."
    return "" if found else f"Could not find an object named '{name}' of type '{kind}'."


def _values(state: State, table: Table, name: str, attributes: Optional[list[str]], lead: str, kind: str) -> list[str]:
    values = table.get(name)
    if values is None:
        return []
    wanted = sorted(values) if attributes is None else sorted(set(attributes))
    lines = []
    for key in wanted:
        value = values.get(key, "")
        if (attributes is None and not value) or (kind in VALID and key not in VALID[kind]):
            continue
        if kind == "site" and key not in values:
            continue
        if not state.bypass:
            value = "".join(char if ord(char) < 128 else "?" * len(char.encode()) for char in value)
        lines.append(f"{lead}{key}={value}")
    return lines


def selected(values: Mapping[str, str], where: Iterable[str]) -> bool:
    """Whether an object fits all of -w."""
    for text in where:
        match = re.fullmatch(r"(\w+)(==|!=|=~|!~|=)(.*)", text, re.DOTALL)
        if match is None:
            return False
        key, sign, wanted = match.groups()
        value = values.get(key, "")
        pattern = wanted[1:-1] if len(wanted) > 1 and wanted[0] == wanted[-1] == "/" else wanted
        fits = {
            "==": value == wanted, "=": value == wanted, "!=": value != wanted,
            "=~": bool(value and re.search(pattern, value)), "!~": not re.search(pattern, value),
        }[sign]  # fmt: skip
        if not fits:
            return False
    return True


def chdef(state: State, argv: list[str]) -> int:
    if argv[:1] != ["-t"] or len(argv) < 3:
        unknown(f"chdef {argv}")
    kind, name, changes = argv[1], argv[2], argv[3:]
    if kind == "site":
        changes, name = argv[2:], "clustersite"
        table: Table = {"clustersite": state.site}
    else:
        table = state.tables[kind]
    values = dict(table.get(name, {}))
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            unknown(f"chdef {argv}")
        if kind in VALID and key not in VALID[kind]:
            raise Failure(f"'{key}' is not a valid attribute name for an object type of '{kind}'.")
        values[key] = value
    table.setdefault(name, {}).update(values)
    state.save()
    say("1 object definitions have been created or modified.")
    return 0


# genimage


def genimage(state: State, argv: list[str]) -> int:
    """The client and the daemon's plugin."""
    import shutil
    import subprocess

    dryrun, given, names = False, {}, []
    words = list(argv)
    while words:
        word = words.pop(0)
        if word in ("-v", "--version"):
            say(VERSION)
            return 0
        if word == "--dryrun":
            dryrun = True
        elif word in ("-k", "-i", "-n", "-g", "-r"):
            given[word] = words.pop(0)
        elif word.startswith("-"):
            complain(f"Unknown option: {word.lstrip('-')}")
            say("Usage:\n    genimage\n")
            return 1
        else:
            names.append(word)
    # The client asks the daemon, also where it is told to do without.
    done = subprocess.run(
        "XCATBYPASS=0 lsdef -t site -o clustersite -i installdir", shell=True, stdin=subprocess.DEVNULL, text=True,
        stdout=subprocess.PIPE, check=False,
    )  # fmt: skip
    found = re.search(r"installdir=(.*)", done.stdout)
    if found is None:
        say("Could not get install directory from site table.  Assuming your OSes are stored in '/install'")
    say("Generating image: ")
    connect(state, "genimage")
    if len(names) != 1:
        unknown(f"genimage {argv}")
    name = names[0]
    values = plain_image(state, name)
    linux = {key: values.get(key, "") for key in LINUXIMAGE}
    if not any(linux.values()):
        raise Failure(f"Cannot find {name} from the linuximage table.")
    complete(name, values)
    if values["provmethod"] not in ("netboot", "statelite"):
        raise Failure(f"'{name}' cannot be used to build diskless image. Make sure osimage.provmethod is 'netboot'.")
    if not linux["pkglist"]:
        raise Failure(f"A .pkglist file must be specified for image '{name}' in the linuximage table.")
    for attribute in ("pkglist", "otherpkglist", "postinstall"):
        for item in filter(None, linux[attribute].split(",")):
            path = item.split()[0] if attribute == "postinstall" else item
            if not os.access(path, os.R_OK):
                called = "postinstall_filename" if attribute == "postinstall" else attribute
                raise Failure(f"The {called} specified '{path}' does not exist!")
    updates: dict[str, str] = {}
    for option, attribute, words_ in (
        ("-i", "nodebootif", "primary nic"),
        ("-k", "kernelver", "kernelver"),
        ("-g", "krpmver", "krpmver"),
        ("-n", "netdrivers", "netdrivers"),
    ):
        if option in given and given[option] != linux[attribute]:
            say(f"The {words_} is different from the value in linuximage table, will update it.")
            linux[attribute] = given[option]
            updates[attribute] = given[option]  # into the table when the image is built
    family = re.sub(r"[0-9.]", "", values["osvers"])
    family = "rh" if "rh" in family else family
    directory = state.root / "share/xcat/netboot" / family
    if not directory.is_dir():
        raise Failure(f"Unable to find genimage script in {directory}.")
    tempfile_name = f"/tmp/xcat_genimage.{os.getpid()}"
    line = f"cd {directory}; " + " ".join(_inner_words(state, name, values, linux, "" if dryrun else tempfile_name))
    say(line)
    if dryrun:
        return 0
    if not state.bypass:
        unknown("how to build in the namespace of the daemon: genimage was run without XCATBYPASS")
    try:
        done_inner = subprocess.run(
            f"{line} 2>&1", shell=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False
        )
        output = done_inner.stdout.decode("utf-8", "replace")
        sys.stdout.write(output)
        sys.stdout.flush()
        if done_inner.returncode:
            state.error(f"Command failed: {line} 2>&1. Error message: {output.rstrip()}.\n")
            state.error(f"genimage command failed with rc {done_inner.returncode}.")
            return done_inner.returncode
        target = Path(state.site.get("tftpdir", "/tftpboot"), "xcat/osimage", name)
        target.mkdir(parents=True, exist_ok=True)
        # Where rootimgdir is not set, the real one copies from the top of the file system, which fails silently.
        for file in ("initrd-stateless.gz", "initrd-statelite.gz", "kernel"):
            if os.path.isfile(f"{linux['rootimgdir']}/{file}"):
                shutil.copyfile(f"{linux['rootimgdir']}/{file}", target / file)
        if "daemon" in state.knob("genimage"):  # it goes away, or comes back, while this builds
            write_json(
                state.fake / "knobs.json", {**State(state.root).knobs, "daemon": state.knob("genimage")["daemon"]}
            )
        if os.path.exists(tempfile_name):
            changes = json.loads(Path(tempfile_name).read_text(encoding="utf-8"))
            fresh = State(state.root)
            fresh.osimages[name].update({**updates, **changes})
            fresh.save()
    finally:
        Path(tempfile_name).unlink(missing_ok=True)
    return 0


def _inner_words(
    state: State, name: str, values: Mapping[str, str], linux: Mapping[str, str], tempfile_name: str
) -> list[str]:
    """The inner command line, as unquoted as the real one makes it."""
    words = ["./genimage", "-a", values["osarch"], "-o", values["osvers"], "-p", values["profile"]]
    for option, key in (("-n", "netdrivers"), ("-i", "nodebootif"), ("-r", "otherifce"), ("-k", "kernelver"), ("-g", "krpmver"),
                        ("--permission", "permission"), ("--kerneldir", "kerneldir")):  # fmt: skip
        words += [option, linux[key]] if linux[key] not in ("", "0") else []
    words += ["--env", values["environvar"]] if values.get("environvar") else []
    for option, key, mark in (("--srcdir", "pkgdir", '"'), ("--pkglist", "pkglist", ""), ("--otherpkgdir", "otherpkgdir", '"'),
                              ("--otherpkglist", "otherpkglist", ""), ("--postinstall", "postinstall", '"'),
                              ("--rootimgdir", "rootimgdir", "")):  # fmt: skip
        words += [option, f"{mark}{linux[key]}{mark}"] if linux[key] else []
    words += ["--tempfile", tempfile_name] if tempfile_name else []
    words += ["--driverupdatesrc", linux["driverupdatesrc"]] if linux["driverupdatesrc"] else []
    words += (
        ["--timezone", state.site["timezone"]]
        if values["osvers"].startswith("sles") and state.site.get("timezone")
        else []
    )
    return [*words, name]


def plain_image(state: State, name: str) -> dict[str, str]:
    values = state.osimages.get(name)
    if values is None:
        raise Failure(f"Cannot find image '{name}' from the osimage table.")
    return values


def complete(name: str, values: Mapping[str, str]) -> None:
    if not all(values.get(key) for key in ("osvers", "osarch", "profile", "provmethod")):
        raise Failure(
            "osimage.osvers, osimage.osarch, osimage.profile and osimage.provmethod must be specified for the image "
            f"{name} in the database."
        )


def take_lock(rootimg: str) -> Any:
    """The lock that genimage, packimage and rmimage share; returns what holds it."""
    import hashlib

    real = os.path.realpath(rootimg) if os.path.isdir(os.path.dirname(os.path.realpath(rootimg))) else ""
    LOCKS.mkdir(parents=True, exist_ok=True)
    path = LOCKS / f"{real.replace('/', '.')}.{hashlib.md5(real.encode()).hexdigest()}"
    stream = open(path, "a+", encoding="ascii")  # noqa: SIM115 - held until the process ends
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        stream.seek(0)
        raise Failure(
            "failed to acquire lock, seems there is another genimage/packimage/rmimage process "
            f'{stream.read().strip()} running on root image dir "{rootimg}"'
        ) from None
    stream.truncate(0)
    stream.write(str(os.getpid()))
    stream.flush()
    return stream


def inner_genimage(state: State, argv: list[str]) -> int:
    """What builds: a small tree, kernel and initrds, with all that a real one leaves in them."""
    knob = state.knob("genimage")
    options: dict[str, str] = {}
    words = list(argv)
    while len(words) > 1:
        key = words.pop(0)
        if not key.startswith("-"):
            unknown(f"the inner genimage's {argv}")
        options[key] = words.pop(0)
    name = words[0] if words else ""
    installdir = state.site.get("installdir", "/install")
    top = options.get("--rootimgdir") or f"{installdir}/netboot/{options['-o']}/{options['-a']}/{options['-p']}"
    rootimg = Path(top, "rootimg")
    (rootimg / "etc").mkdir(parents=True, exist_ok=True)  # that of EL does so before it takes the lock
    try:
        holder = take_lock(str(rootimg))
    except Failure as err:
        say(str(err))  # the real inner script prints it and ends
        return 1
    say("846 blocks")
    _event(state, knob, "started")
    try:
        _fill(state, knob, options, Path(top), name)
    finally:
        holder.close()
    for line in knob.get("log", []):
        say(line)
    if knob.get("code"):
        return int(knob["code"])
    if "--tempfile" in options:
        changes = {"permission": options.get("--permission", "755"), "rootimgdir": top,
                   "pkgdir": options.get("--srcdir", f"{installdir}/{options['-o']}/{options['-a']}"), **knob.get("attributes", {})}  # fmt: skip
        Path(options["--tempfile"]).write_text(json.dumps(changes), encoding="utf-8")
    return 0


def _event(state: State, knob: Mapping[str, Any], what: str) -> None:
    """Tell a test that it has come so far, and wait for it where it asked for that."""
    (state.fake / what).touch()
    gate = knob.get("gate")
    deadline = time.monotonic() + 60
    while gate and not (state.fake / gate).exists() and time.monotonic() < deadline:
        time.sleep(0.02)


def _fill(state: State, knob: Mapping[str, Any], options: Mapping[str, str], top: Path, name: str) -> None:
    import gzip
    import shutil
    import subprocess

    root = top / "rootimg"
    version = options.get("-k") or "6.1.0-1.x86_64"
    for directory in ("etc/init.d", "etc/ssh", "usr/bin", "usr/share/doc/bash", "usr/share/zoneinfo", "var/log", "var/lib/rpm", "proc", "sys",
                      "dev/shm", "run/lock", "tmp", "root", "boot", "opt/xcat", f"lib/modules/{version}/kernel", ".statelite",
                      ".sllocal/localmnt"):  # fmt: skip
        (root / directory).mkdir(parents=True, exist_ok=True)
    packages = [
        line.strip() for path in options["--pkglist"].split(",") for line in Path(path).read_text().splitlines()
    ]
    packages = [line for line in packages if line and not line.startswith("#")]
    files: dict[str, bytes] = {
        "etc/passwd": b"root:x:0:0:root:/root:/bin/bash\n",
        "etc/shadow": b"root:*:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\n",
        "etc/os-release": f'ID="rocky"\nVERSION_ID="{options["-o"]}"\n'.encode(),
        "etc/built-from": "".join(f"{package}\n" for package in packages).encode(),
        "etc/issue": str(knob.get("issue", "the first build")).encode() + b"\n",
        "etc/init.d/statelite": b"#!/bin/sh\n# of xCAT, for diskless nodes that keep files\n",
        "etc/init.d/localdisk": b"#!/bin/sh\n",
        "usr/bin/true": b"#!/bin/sh\nexit 0\n",
        "usr/share/doc/bash/README": b"documentation\n" * 50,
        "usr/share/zoneinfo/Universal": b"TZif2",
        "var/log/messages": b"of the build\n",
        "boot/vmlinuz-" + version: f"the kernel {version} {knob.get('issue', '')}\n".encode(),
        # The distribution's own initrd, which knows nothing of network boots.
        f"boot/initramfs-{version}.img": b"the initrd of the kernel package\n",
        f"lib/modules/{version}/modules.dep": b"",
        "run/of-the-host.pid": b"1\n",
        "dev/shm/of-the-host": b"a secret of the management node\n",
        "root/payload": random_bytes(int(knob.get("size", 200_000)), str(knob.get("issue", ""))),
        **{path: text.encode() for path, text in knob.get("files", {}).items()},
    }
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    for path in ("etc/init.d/statelite", "usr/bin/true"):
        (root / path).chmod(0o755)
    (root / "etc/shadow").chmod(0)
    for extra in knob.get("kernels", []):
        (root / "boot" / f"vmlinuz-{extra}").write_bytes(f"another kernel {extra}\n".encode())
    for device, major, minor in (("null", 1, 3), ("console", 5, 1), ("zero", 1, 5)):
        if not (root / "dev" / device).exists():
            os.mknod(root / "dev" / device, 0o20666, os.makedev(major, minor))
    if knob.get("meanwhile"):  # somebody sets that while this builds; what was read at the start is written over it
        fresh = State(state.root)
        fresh.osimages[name].update(knob["meanwhile"])
        fresh.save()
    say(f"building {name} for {float(knob.get('delay', 0)):g} s")
    time.sleep(float(knob.get("delay", 0)))
    _event(state, {}, "filled")
    gate = knob.get("second_gate")
    if gate:
        _event(state, {"gate": gate}, "waiting")
    shutil.copyfile(root / f"boot/vmlinuz-{version}", top / "kernel")
    for mode in ("stateless", "statelite"):
        initrd = top / f"initrd-{mode}.gz"
        text = f"initrd of xCAT, {mode}, for {version} {knob.get('issue', '')}\n"
        initrd.write_bytes(gzip.compress(newc({"init": text.encode(), "etc/initrd-release": b"NAME=fake\n"})))
        initrd.chmod(0o600)
    _databases(root, packages, str(knob.get("rpm", "")))
    if knob.get("leave_mount"):
        subprocess.run(["mount", "--bind", "/run", str(root / "run")], check=True)


def _databases(root: Path, packages: Iterable[str], rpm: str) -> None:
    """What package managers write: another history each time, and a database.

    That of dpkg, which is read without a process; with an rpm to install, that of rpm, where this machine's rpm puts it.
    """
    import subprocess

    (root / "var/lib/dnf").mkdir(parents=True, exist_ok=True)
    for suffix in ("", "-shm", "-wal"):
        (root / f"var/lib/dnf/history.sqlite{suffix}").write_bytes(os.urandom(64))
    if rpm:
        words = ["rpm", "--root", str(root), "-i", "--justdb", "--nodeps", "--nosignature", rpm]
        subprocess.run(words, stdin=subprocess.DEVNULL, check=True)
        return
    fields = "Status: install ok installed\nVersion: 1.0\nArchitecture: amd64"
    (root / "var/lib/dpkg").mkdir(parents=True, exist_ok=True)
    (root / "var/lib/dpkg/status").write_text("".join(f"Package: {name}\n{fields}\n\n" for name in packages))


def newc(files: Mapping[str, bytes]) -> bytes:
    """A cpio archive with the times and inode numbers of one run, as every mkinitrd makes it."""
    out, inode = b"", int.from_bytes(os.urandom(3), "little")
    for name, data in [*files.items(), ("TRAILER!!!", b"")]:
        inode += 1
        fields = (inode, 0o100755, 0, 0, 1, int(time.time()), len(data), 8, 1, 0, 0, len(name) + 1, 0)
        for part in (b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0", data):
            out += part + b"\0" * (-len(part) % 4)
    return out


def random_bytes(size: int, seed: str) -> bytes:
    """Bytes that no compression makes smaller, the same for the same seed."""
    import hashlib

    blocks = (hashlib.sha256(f"{seed}{number}".encode()).digest() for number in range(size // 32 + 1))
    return b"".join(blocks)[:size]


# packimage


def packimage(state: State, argv: list[str]) -> int:
    if not argv or "-h" in argv or "--help" in argv:
        sys.stdout.write(PACKIMAGE_USAGE)
        return 0
    method, compress, sync, legacy = "cpio", "", True, False
    words, names = list(argv), []
    while words:
        word, _, value = words.pop(0).partition("=")
        if word in ("-m", "--method"):
            method = value or words.pop(0)
        elif word in ("-c", "--compress"):
            compress = value or words.pop(0)
        elif word == "--nosyncfiles":
            sync = False
        elif word in ("-v", "--version"):
            say(VERSION)
            return 0
        elif word in ("-o", "-p", "-a"):
            legacy = True
            words.pop(0)
        else:
            names.append(word)
    if legacy:
        raise Failure("-o, -p and -a options are obsoleted, please use 'packimage <osimage name>' instead.")
    if not names:
        raise Failure("An image name is required, use 'packimage <osimage name>'.")
    name = names[0]
    values = plain_image(state, name)
    if not (values.get("exlist") or values.get("rootimgdir")):
        raise Failure(f"Cannot find {name} from the linuximage table.")
    complete(name, values)
    if values["provmethod"] != "netboot":
        raise Failure(f"'{name}' cannot be used to build diskless image. Make sure osimage.provmethod is 'netboot'.")
    installdir = state.site.get("installdir", "/install")
    top = values.get("rootimgdir") or f"{installdir}/netboot/{values['osvers']}/{values['osarch']}/{values['profile']}"
    rootimg = f"{top}/rootimg"
    holder = take_lock(rootimg)
    try:
        return _pack(state, name, values, top, rootimg, method, compress, sync)
    finally:
        holder.close()


def shell(command_line: str) -> str:
    """A command line as packimage runs them: through a shell, its exit code left alone."""
    import subprocess

    done = subprocess.run(command_line, shell=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    return done.stdout.decode("utf-8", "replace").rstrip("\n")


def _pack(
    state: State, name: str, values: Mapping[str, str], top: str, rootimg: str, method: str, compress: str, sync: bool
) -> int:
    import shutil
    import tempfile

    knob = state.knob("packimage")
    distribution = values["osvers"]
    while distribution and not (state.root / "share/xcat/netboot" / distribution).is_dir():
        distribution = distribution[:-1]
    if not distribution:
        raise Failure(f"Unable to find {state.root}/share/xcat/netboot directory for {values['osvers']}")
    if not state.bypass:
        unknown("how to pack in the namespace of the daemon: packimage was run without XCATBYPASS")
    code = _edit(state, name, values, rootimg, sync)
    if compress not in ("", "gzip", "pigz", "xz"):
        raise Failure(f"Invalid compress method '{compress}' requested")
    compress = compress or ("pigz" if shutil.which("pigz") else "gzip")
    if method not in ("cpio", "tar", "squashfs"):
        raise Failure(f"Invalid archive method '{method}' requested")
    say(f"Packing contents of {rootimg}")
    say(f"archive method:{method}")
    if method != "squashfs":
        say(f"compress method:{compress}")
    find, include = _find(values.get("exlist", ""), state.site.get("timezone", ""))
    listing = tempfile.NamedTemporaryFile("w", prefix="xcat_packimg.", delete=False)  # noqa: SIM115 - as the real one
    listing.close()
    suffix = "xz" if compress == "xz" else "gz"
    archive = f"{top}/rootimg.sfs" if method == "squashfs" else f"{top}/rootimg.{method}.{suffix}"
    for stale in Path(top).glob("rootimg.*"):
        stale.unlink()
    try:
        os.chdir(rootimg)
        for command_line in filter(None, (find, include)):
            shell(f"{command_line} >> {listing.name}")
        _spoil(knob, Path(listing.name))
        if method == "cpio":
            pipe = f"cat {listing.name}|cpio -H newc -o | {compress} -c -"
        elif method == "tar":
            option = "--xattrs --xattrs-include='*' --selinux  --no-recursion"
            pipe = f"cat {listing.name}| tar  {option} --use-compress-program={compress} -T - -cf -"
        else:
            return code | _squash(listing.name, archive)
        result, said = _write_slowly(pipe, archive, knob, method)
        say(said)
        if result:
            state.error(f"packimage failed while running: \n {pipe.removesuffix('-cf -') + '-cf ' if method == 'tar' else pipe + ' >'} "
                        f"../{os.path.basename(archive)}")  # fmt: skip
            return 1
        os.chmod(archive, 0o644)
        if knob.get("truncate"):
            os.truncate(archive, os.path.getsize(archive) - int(knob["truncate"]))
        if knob.get("second"):
            Path(top, knob["second"]).write_bytes(b"another archive\n")
        return code
    finally:
        os.unlink(listing.name)


def _edit(state: State, name: str, values: Mapping[str, str], rootimg: str, sync: bool) -> int:
    """What packimage changes in the tree before it packs it. Returns the exit code so far."""
    import shutil

    root, code = Path(rootimg), 0
    installdir = state.site.get("installdir", "/install")
    if (root / "xcatpost").exists():
        shell(f"rm -rf {rootimg}/xcatpost")
    shell(f"mkdir -p {rootimg}/xcatpost; cp -r {installdir}/postscripts/* {rootimg}/xcatpost/")
    shell(f"echo IMAGENAME=\"'{name}'\" > {rootimg}/opt/xcat/xcatinfo")
    shell(f"echo IMAGEUUID=\"'{shell('uuidgen')}'\" >> {rootimg}/opt/xcat/xcatinfo")
    shell(f"echo TIMESTAMP=\"'{shell('date')}'\" >> {rootimg}/opt/xcat/xcatinfo")
    if (root / "etc/init.d/statelite").exists():
        shell(f"mv {rootimg}/etc/init.d/statelite {rootimg}/.statebackup/statelite 2>/dev/null")
    for path, text in state.knob("packimage").get("edit", {}).items():  # of a site's own xCAT
        (root / path).write_text(text)
    zone = state.site.get("timezone", "")
    if zone:
        localtime = root / "etc/localtime"
        localtime.unlink(missing_ok=True)
        if localtime.parent.is_dir():
            localtime.symlink_to(f"../usr/share/zoneinfo/{zone}")
        if not localtime.exists():
            complain(f"Warning: {state.tag}Unable to set timezone to '{zone}', check this is a valid timezone")
    else:
        say("No timezone defined in site table, skipping timezone /etc/localtime configuration")
    script = Path(installdir, "postscripts/xcatdsklspost")
    if script.is_file():
        (root / "opt/xcat").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(script, root / "opt/xcat/xcatdsklspost")
        (root / "opt/xcat/xcatdsklspost").chmod(0o755)
    else:
        state.error(f"Could not find the script {script}.\n")
        code = 1
    password = "*" if state.site.get("secureroot") == "1" else state.tables.get("passwd") or "cluster"
    shadow = root / "etc/shadow"
    lines = shadow.read_text().splitlines(keepends=True) if shadow.is_file() else []
    if shadow.parent.is_dir():
        old = os.umask(0o077)
        kept = "".join(line for line in lines if not line.startswith("root:"))
        shadow.write_text(f"root:{password}:13880:0:99999:7:::\n{kept}")
        os.umask(old)
    for synclist in values.get("synclists", "").split(",") if sync else ():
        if synclist and os.path.isfile(synclist):
            for line in Path(synclist).read_text().splitlines():
                source, arrow, target = line.partition(" -> ")
                if arrow and os.path.isfile(source):
                    (root / target.strip().lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source, root / target.strip().lstrip("/"))
    return code


def _find(exlists: str, zone: str) -> tuple[str, str]:
    """The two commands that list what goes into the archive."""
    outside, inside = [], []
    for path in filter(None, exlists.split(",")):
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError:
            text = ""  # a missing exlist is passed over
        text += f"\n+./usr/share/zoneinfo/{zone}\n" if zone else ""
        for _ in range(20):
            match = re.search(r"#INCLUDE:([^#^\n]+)#", text)
            if match is None:
                break
            text = text[: match.start()] + _include(match.group(1), os.path.dirname(path)) + text[match.end() :]
        for line in text.split("\n"):
            line = re.sub(r"\s*#.*", "", line)
            if not line.strip():
                continue
            if line.startswith("+"):
                inside.append(line[1:])
            else:
                outside.append(line.removeprefix("-"))
    conditions = " -a ".join(f"'!' -path '{pattern}'" for pattern in [*outside, *STATELITE])
    include = "find . -xdev " + " -o ".join(f"-path '{pattern}'" for pattern in inside) if inside else ""
    return f"find . -xdev  {conditions}", include


def _include(name: str, directory: str) -> str:
    path = name if name.startswith("/") else f"{directory}/{name}"
    try:
        return "\n".join(line.rstrip() for line in Path(path).read_text().splitlines() if line.strip())
    except OSError:
        return f"#INCLUDEBAD:cannot open {path}#"


def _spoil(knob: Mapping[str, Any], listing: Path) -> None:
    """What a failing pipe does to an archive, without a word and with exit code 0."""
    lines = listing.read_text(encoding="utf-8", errors="surrogateescape").splitlines(keepends=True)
    if "keep" in knob:
        lines = lines[: int(knob["keep"])]
    lines = [
        line for line in lines if not any(fnmatch.fnmatch(line.rstrip("\n"), item) for item in knob.get("drop", []))
    ]
    listing.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")
    if knob.get("hollow"):  # every name is there and hardly a byte of what they hold
        for line in lines:
            path = Path(line.rstrip("\n"))
            if path.is_file() and not path.is_symlink() and path.stat().st_size > 1000:
                os.rename(path, f"{path}.hollow")
                path.write_bytes(b"")


def _write_slowly(pipe: str, archive: str, knob: Mapping[str, Any], method: str) -> tuple[int, str]:
    """Run the pipe and write its output in place, for all to see while it grows. Exit code: the last program's."""
    import subprocess

    old = os.umask(0o077)
    stderr = subprocess.PIPE if method == "tar" else None
    with open(archive, "wb") as stream:
        os.umask(old)
        process = subprocess.Popen(pipe, shell=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr)
        assert process.stdout is not None
        pause = float(knob.get("delay", 0)) / 20
        total = 0
        while chunk := process.stdout.read(16384):
            stream.write(chunk)
            stream.flush()
            total += 1
            time.sleep(pause if total <= 20 else 0)
        said = process.stderr.read().decode("utf-8", "replace").rstrip("\n") if process.stderr else ""
        code = process.wait()
    _restore_hollow()
    return code or int(knob.get("code", 0)), said


def _restore_hollow() -> None:
    for directory, _, files in os.walk("."):
        for name in files:
            if name.endswith(".hollow"):
                os.rename(os.path.join(directory, name), os.path.join(directory, name[: -len(".hollow")]))


def _squash(listing: str, archive: str) -> int:
    import subprocess
    import tempfile

    with tempfile.TemporaryDirectory(prefix="packimage.") as temporary:
        os.chmod(temporary, 0o755)
        shell(f"cat {listing}|cpio -dump {temporary} 2>&1")
        done = subprocess.run(
            ["mksquashfs", temporary, archive, "-no-progress"], stdout=subprocess.DEVNULL, check=False
        )
    if done.returncode == 0:
        os.chmod(archive, 0o644)
    return 1 if done.returncode else 0


# nodes


def expand(state: State, noderange: str) -> list[str]:
    """The nodes of a range such as `cn001-cn004,compute`; unknown names as they are."""
    found: list[str] = []
    for atom in noderange.split(","):
        members = [node for node, values in state.nodes.items() if atom in values.get("groups", "").split(",")]
        match = re.fullmatch(r"(.*?)(\d+)(\D*)-\1(\d+)\3", atom)
        if atom in state.nodes or not (members or match):
            found.append(atom)
        elif members:
            found += members
        else:
            assert match is not None
            prefix, first, suffix, last = match.groups()
            found += [f"{prefix}{number:0{len(first)}d}{suffix}" for number in range(int(first), int(last) + 1)]
    return list(dict.fromkeys(found))


def valid_nodes(state: State, noderange: str) -> list[str]:
    nodes = expand(state, noderange)
    missing = [node for node in nodes if node not in state.nodes]
    if missing:
        complain(f"Error: Invalid nodes and/or groups in noderange: {','.join(missing)}")
        sys.exit(1)
    return nodes


def nodeset(state: State, argv: list[str]) -> int:
    if not argv:
        sys.stdout.write(NODESET_USAGE)
        return 0
    update = "--noupdateinitrd" not in argv
    words = [word for word in argv if word not in ("-V", "--noupdateinitrd")]
    nodes = valid_nodes(state, words[0])
    if len(words) < 2:
        unknown(f"nodeset {argv}")
    what, _, name = words[1].partition("=")
    if what == "stat":
        for node in nodes:
            say(f"{node}: {state.nodes[node].get('currstate') or 'offline'}")
        return 0
    if what == "boot":
        for node in nodes:
            say(f"{node}: boot")
        return 0
    if what in ("install", "netboot", "statelite"):
        raise Failure(
            'The options "install", "netboot", and "statelite" have been deprecated, use "osimage=<osimage_name>" instead.'
        )
    if what != "osimage":
        raise Failure(f"Unknown state {words[1]} requested")
    code, copied = 0, False
    failing = state.knob("nodeset").get("fail", {})
    for node in nodes:
        image = name or state.nodes[node].get("provmethod", "")
        values = state.osimages.get(image)
        if values is None:
            raise Failure(f"Cannot find the OS image {image} in the osimage table.")
        problem = failing.get(node) or _bootable(state, values)
        if problem:
            complain(f"{node}: {state.tag}Error: {problem}")
            code = 1
            continue
        if not state.nodes[node].get("serialport"):
            complain(f"Warning: {state.tag}rcons may not work since no serialport is specified for {node}")
        copied = _boot_files(state, image, values, node, update and not copied) or copied
        booted = f"netboot {values['osvers']}-{values['osarch']}-{values['profile']}"
        say(f"{node}: {booted}")
        state.nodes[node].update(
            os=values["osvers"], arch=values["osarch"], profile=values["profile"], provmethod=image, currstate=booted
        )
    state.save()
    if code:
        state.error(
            f"Failed to generate xnba configurations for some node(s) on {HOST}. Check xCAT log file for more details."
        )
    return code


def _rootimgdir(state: State, values: Mapping[str, str]) -> str:
    path = f"netboot/{values.get('osvers')}/{values.get('osarch')}/{values.get('profile')}"
    return values.get("rootimgdir") or f"{state.site.get('installdir', '/install')}/{path}"


def packed(directory: str) -> str:
    """The archive that nodes would load, the first of those that could be there."""
    return next((name for name in ARCHIVES if os.access(f"{directory}/{name}", os.R_OK)), "")


def _bootable(state: State, values: Mapping[str, str]) -> str:
    top = _rootimgdir(state, values)
    for file in ("kernel", "initrd-stateless.gz"):
        if not os.path.isfile(f"{top}/{file}"):
            return (
                f'Did you run "genimage" before running "packimage"? kernel cannot be found at {top}/kernel on {HOST}'
            )
    if packed(top):
        return ""
    osvers, arch, profile = values["osvers"], values["osarch"], values["profile"]
    hint = f"please run packimage (e.g.  packimage -o {osvers} -p {profile} -a {arch}"
    if osvers.startswith(("ubuntu", "debian")):
        return f"No packed image for platform {osvers}, architecture {arch}, and profile {profile}, {hint})"
    return (f"No packed image for platform {osvers}, architecture {arch}, and profile {profile} found at {top}/rootimg.gz or "
            f"{top}/rootimg.sfs on {HOST}, {hint}")  # fmt: skip


def _boot_files(state: State, image: str, values: Mapping[str, str], node: str, copy: bool) -> bool:
    import shutil

    tftp, top = Path(state.site.get("tftpdir", "/tftpboot")), _rootimgdir(state, values)
    target = tftp / "xcat/osimage" / image
    if copy:
        target.mkdir(parents=True, exist_ok=True)
        for file in ("kernel", "initrd-stateless.gz"):
            shutil.copyfile(f"{top}/{file}", target / file)
    boot = tftp / "xcat/xnba/nodes" / node
    boot.parent.mkdir(parents=True, exist_ok=True)
    boot.write_text(f"#!gpxe\nimgfetch -n kernel http://{HOST}:80{target}/kernel\nimgload kernel\nimgargs kernel "
                    f"imgurl=http://{HOST}:80/{top}/{packed(top)} XCAT={HOST}:3001\n")  # fmt: skip
    return True


def xdsh(state: State, argv: list[str]) -> int:
    words = list(argv)
    nodes = valid_nodes(state, words.pop(0))
    while words and words[0].startswith("-"):
        if words.pop(0) in ("-t", "-f", "-l"):
            words.pop(0)
    if not words:
        unknown(f"xdsh {argv}")
    code = 0
    knob = state.knob("xdsh")
    for node in nodes:
        answers = state.fake / "nodes" / node
        if not answers.is_file():
            complain(f"{node}: ssh: connect to host {node} port 22: No route to host")
            code = 1
            continue
        for line in answers.read_text(encoding="utf-8").splitlines():
            if line.startswith("!"):
                complain(f"{node}: {line[1:]}")
                code = 1
            else:
                say(f"{node}: {line}")
    if knob.get("hang_at_end"):
        time.sleep(3600)
    return code


def programs() -> Sequence[str]:
    """The names that a fake XCATROOT has in bin and sbin."""
    return ("bin/lsdef", "bin/chdef", "bin/genimage", "sbin/packimage", "sbin/nodeset", "bin/xdsh")
