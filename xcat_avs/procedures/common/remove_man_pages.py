"""Remove the manual pages and their index"""

from fnmatch import fnmatch

OPTIONS = {
    "directories": (
        ("usr/share/man", "usr/local/share/man", "usr/X11R6/man", "var/cache/man"),
        "patterns of the directories whose contents go",
    ),
    "keep": (
        ("usr/share/man/man?",),
        "patterns of paths that stay; scripts of packages make links in the directories of sections",
    ),
    "future": (True, "have rpm, or dpkg, leave these files out of what is installed later"),
}


def run(ctx):
    removed = 0
    for path in reversed([path for top in ctx.options["directories"] for path in ctx.glob(f"{top}/**/*")]):
        if any(fnmatch(str(path.relative_to(ctx.root)), pattern) for pattern in ctx.options["keep"]):
            continue
        if path.is_symlink() or not path.is_dir():
            path.unlink()
            removed += 1
        elif not any(path.iterdir()):
            path.rmdir()
    ctx.say(f"removed {removed} files" if removed else "nothing to remove")
    if ctx.options["future"] and ctx.image.version.packages == "rpm":
        ctx.install_file("%_excludedocs 1\n", "/etc/rpm/macros.avs-excludedocs")
    elif ctx.options["future"]:
        lines = [f"path-exclude=/{pattern}/*\n" for pattern in ctx.options["directories"]]
        lines += [f"path-include=/{pattern}\n" for pattern in ctx.options["keep"]]
        ctx.install_file("".join(lines), "/etc/dpkg/dpkg.cfg.d/avs-remove_man_pages")
