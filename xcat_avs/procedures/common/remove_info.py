"""Remove the pages of info"""

from fnmatch import fnmatch

OPTIONS = {
    "directories": (
        ("usr/share/info", "usr/local/share/info"),
        "patterns of the directories whose contents go",
    ),
    "keep": ((), "patterns of paths that stay"),
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
        ctx.install_file("".join(lines), "/etc/dpkg/dpkg.cfg.d/avs-remove_info")
