"""Remove what a build leaves behind: caches, logs, temporary files, the machine's identity"""

import os

OPTIONS = {
    "caches": (
        (
            "var/cache/apt",
            "var/cache/dnf",
            "var/cache/libdnf5",
            "var/cache/yum",
            "var/cache/zypp",
            "var/cache/ldconfig",
            "var/lib/apt/lists",
            "var/cache/debconf/*-old",
        ),
        "patterns: matching files, and all files in matching directories, are removed",
    ),
    "temporary": (("tmp", "var/tmp"), "directories that are emptied"),
    "logs": (True, "empty the files below /var/log"),
    "identity": (True, "empty machine-id; remove the random seed and the ssh host keys"),
    "backups": (
        (
            "etc/passwd-",
            "etc/group-",
            "etc/shadow-",
            "etc/gshadow-",
            "etc/subuid-",
            "etc/subgid-",
            "var/lib/dpkg/*-old",
        ),
        "patterns of backups that package managers and useradd make, to be removed",
    ),
    "leftovers": (False, "remove what packages put beside configuration that was changed: .rpmnew, .dpkg-dist, ..."),
    "stamps": (True, "empty the time stamps of anacron"),
    "nss_checks": (False, "remove the check sums of NSS (.chk); without them there is no FIPS mode"),
    "busybox": ((), "tools to replace by links to the image's busybox"),
}
SEEDS = ("var/lib/systemd/random-seed", "var/lib/random-seed", "var/lib/urandom/random-seed")
LEFTOVERS = ("rpmnew", "rpmsave", "rpmorig", "dpkg-dist", "dpkg-new", "dpkg-old", "dpkg-tmp", "ucf-dist", "ucf-old")
NSS = ("usr/lib*/lib*.chk", "usr/lib/*-linux-gnu*/lib*.chk", "usr/lib*/nss/lib*.chk", "lib*/lib*.chk")


def run(ctx):
    options = ctx.options
    remove(files(ctx, *options["caches"], *(f"{pattern}/**/*" for pattern in options["caches"]), *options["backups"]))
    for path in [path for name in options["temporary"] for path in ctx.glob(f"{name}/*")]:
        ctx.remove(str(path.relative_to(ctx.root)))
    if options["logs"]:
        empty(files(ctx, "var/log/**/*"))  # daemons expect theirs with its owner and mode
    if options["stamps"]:
        empty(files(ctx, "var/spool/anacron/*"))
    if options["identity"]:
        empty(files(ctx, "etc/machine-id"))  # systemd makes one for each node at boot
        owned = files(ctx, "var/lib/dbus/machine-id", *SEEDS, "etc/ssh/ssh_host_*key*")
        remove(path for path in owned if not path.is_symlink())
    if options["leftovers"]:
        remove(files(ctx, *(f"{top}/**/*.{suffix}" for top in ("etc", "usr", "var/lib") for suffix in LEFTOVERS)))
    if options["nss_checks"]:
        remove(files(ctx, *NSS))
    if options["busybox"]:
        link_to_busybox(ctx, options["busybox"])


def files(ctx, *patterns):
    found = (path for pattern in patterns for path in ctx.glob(pattern))
    return [path for path in found if path.is_symlink() or path.is_file()]


def remove(paths):
    for path in paths:
        path.unlink(missing_ok=True)  # two patterns may match it


def empty(paths):
    for path in paths:
        if not path.is_symlink() and path.stat().st_size:
            os.truncate(path, 0)


def link_to_busybox(ctx, tools):
    """Put links to busybox where the tools are, or into /usr/bin, once busybox is known to have all of them."""
    directories = ("/usr/bin", "/usr/sbin", "/bin", "/sbin")
    found = [f"{top}/busybox" for top in directories if ctx.inside(f"{top}/busybox").is_file()]
    if not found:
        ctx.fail("there is no busybox in the image; add its package, or set [cleanup] busybox to nothing")
    start = ctx.log.stat().st_size
    ctx.chroot([found[0], "--list"])
    known = ctx.log.read_bytes()[start:].decode().split("\n")
    unknown = [tool for tool in tools if tool not in known or tool == "busybox"]
    if unknown:
        ctx.fail(f"the busybox of the image is no {' or '.join(unknown)}; all it is: {' '.join(known[1:-1])}")
    for tool in tools:
        places = {ctx.inside(f"{top}/{tool}") for top in directories}
        places = {path for path in places if os.path.lexists(path)} or {ctx.inside(f"/usr/bin/{tool}")}
        for path in places:
            path.unlink(missing_ok=True)
            path.symlink_to(found[0])
        ctx.say(f"{tool} is busybox")
