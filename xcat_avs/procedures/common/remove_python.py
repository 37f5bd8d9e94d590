"""Remove Python from the image"""

import re
import shutil
from fnmatch import fnmatch

OPTIONS = {
    "how": ("packages", "packages: remove them, and all that need them; files: remove files and leave the packages"),
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
    "protect": (("systemd", "kernel*", "linux-image*", "openssh-server"), "patterns of packages that must not go along"),
}


def run(ctx):
    if ctx.options["how"] == "files":
        found = [path for pattern in ctx.options["files"] for path in ctx.glob(pattern)]
        for path in found:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        ctx.say(f"removed {len(found)} files and directories" if found else "no Python in the image: nothing to remove")
        return
    if ctx.options["how"] != "packages":
        raise RuntimeError(f"[remove_python] how = {ctx.options['how']} in the recipe; it is packages or files")
    before = installed(ctx)
    if not before:
        raise RuntimeError("the image has no package database; set how = files in the recipe")
    names = matching(before, ctx.options["packages"])
    if not names:
        ctx.say("no packages of Python in the image: nothing to remove")
        return
    ctx.remove_packages(*names)
    after = installed(ctx)
    ctx.say(f"removed {', '.join(sorted(before - after))}")
    left, lost = matching(after, names), matching(before - after, ctx.options["protect"])
    if left or lost:
        text = [f"still there: {', '.join(left)}"] * bool(left) + [f"gone along: {', '.join(lost)}"] * bool(lost)
        raise RuntimeError(f"removing Python did not go as it should: {'; '.join(text)}; see packages and protect")


def matching(names, patterns):
    return sorted(name for name in names if any(fnmatch(name, pattern) for pattern in patterns))


def installed(ctx):
    """The names of the packages in the image, by its own database."""
    if ctx.image.version.packages == "deb":
        status = ctx.inside("/var/lib/dpkg/status")
        text = status.read_text(errors="replace") if status.is_file() else ""
        pattern = r"^Package: (\S+)\nStatus: \S+ \S+ installed$"
        return set(re.findall(pattern, text, re.MULTILINE))
    start = ctx.log.stat().st_size
    query = ["rpm", "-qa", "--qf", "package=%{NAME}\\n"]
    if ctx.inside("/usr/bin/rpm").is_file() or ctx.inside("/bin/rpm").is_file():
        ctx.chroot(query)  # the image's own rpm knows its database best
    else:
        databases = [f"{top}/{name}" for top in ("usr/lib/sysimage/rpm", "var/lib/rpm") for name in ("Packages*", "*.sqlite")]
        found = [path.parent for pattern in databases for path in ctx.glob(pattern)]
        if not found:
            return set()
        ctx.run([*query, "--dbpath", str(found[0])])
    return set(re.findall(r"^package=(\S+)$", ctx.log.read_bytes()[start:].decode(errors="replace"), re.MULTILINE))
