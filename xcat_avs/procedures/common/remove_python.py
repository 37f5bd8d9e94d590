"""Remove Python from the image"""

import re
from fnmatch import fnmatch

OPTIONS = {
    "how": (
        "packages",
        "packages: remove them, and all that need them; files: remove files and leave the packages",
        ("packages", "files"),
    ),
    "packages": (
        ("python", "python[23]*", "python-*", "libpython*", "platform-python*"),
        "patterns of the names of packages that go",
    ),
    "files": (
        (
            "usr/bin/python*",
            "usr/bin/pydoc*",
            "usr/libexec/platform-python*",
            "usr/lib*/python*",
            "usr/lib*/libpython*",
            "usr/lib/*-linux-gnu*/libpython*",
            "usr/share/python*",
        ),
        "patterns of what goes with how = files",
    ),
    "protect": (
        ("systemd", "kernel*", "linux-image*", "openssh-server"),
        "patterns of packages that are not to go along; nothing is removed then",
    ),
}


def run(ctx):
    if ctx.options["how"] == "files":
        found = [path for pattern in ctx.options["files"] for path in ctx.glob(pattern)]
        for path in found:
            ctx.remove(str(path.relative_to(ctx.root)))
        ctx.say(f"removed {len(found)} files and directories" if found else "no Python in the image: nothing to remove")
        return
    before = installed(ctx)
    if not before:
        ctx.fail("the image has no package database; build it without -b, or set [remove_python] how = files")
    names = matching(before, ctx.options["packages"])
    if not names:
        ctx.say("no packages of Python in the image: nothing to remove")
        return
    along = sorted(taken_along(ctx, names) - set(names))
    lost = matching(along, ctx.options["protect"])
    if lost:
        ctx.fail(
            f"{', '.join(lost)} would go along with Python; leave out of [remove_python] packages what they need, "
            "or set how = files"
        )
    ctx.remove_packages(*names)
    left = matching(installed(ctx), names)
    if left:
        ctx.fail(f"packages of Python are still there: {', '.join(left)}; see {ctx.log}")
    ctx.say(f"removed {', '.join(names)}" + (f", and with them {', '.join(along)}" if along else ""))


def matching(names, patterns):
    return sorted(name for name in names if any(fnmatch(name, pattern) for pattern in patterns))


def taken_along(ctx, names):
    """The names of the packages that go when these are removed, by what the package manager would do."""
    if ctx.image.version.packages == "deb":
        text = said(ctx, ctx.chroot, ["apt-get", "-s", "purge", *names])
        return set(re.findall(r"^(?:Purg|Remv) (\S+)", text, re.MULTILINE))
    found = set(names)
    while True:  # rpm names those that need what goes, and then those that need these
        text = said(ctx, *rpm(ctx), ["-e", "--test", "--allmatches", *found], check=False)
        more = {item.rsplit("-", 2)[0] for item in re.findall(r"is needed by \(installed\) (\S+)", text)} - found
        if not more:
            return found
        found |= more


def installed(ctx):
    """The names of the packages in the image, by its own database."""
    if ctx.image.version.packages == "deb":
        status = ctx.inside("/var/lib/dpkg/status", follow=True)
        text = status.read_text(errors="replace") if status.is_file() else ""
        return set(re.findall(r"^Package: (\S+)\nStatus: \S+ \S+ installed$", text, re.MULTILINE))
    if database(ctx) is None:
        return set()
    text = said(ctx, *rpm(ctx), ["-qa", "--qf", "package=%{NAME}\\n"])
    return set(re.findall(r"^package=(\S+)$", text, re.MULTILINE))


def database(ctx):
    tops = ("usr/lib/sysimage/rpm", "var/lib/rpm")
    found = [path.parent for top in tops for name in ("Packages*", "*.sqlite") for path in ctx.glob(f"{top}/{name}")]
    return found[0] if found else None


def rpm(ctx):
    """How rpm is run, and its first words; the image's own knows its database best."""
    if ctx.inside("/usr/bin/rpm").is_file() or ctx.inside("/bin/rpm").is_file():
        return ctx.chroot, ["rpm"]
    return ctx.run, ["rpm", "--dbpath", str(database(ctx))]


def said(ctx, run, *words, check=True):
    """What a program has written to the log."""
    start = ctx.log.stat().st_size
    run([word for part in words for word in part], check=check)
    return ctx.log.read_bytes()[start:].decode(errors="replace")
