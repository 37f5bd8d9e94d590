"""Remove the sources that locales are made from"""

from fnmatch import fnmatch

OPTIONS = {
    "directories": (("usr/share/i18n",), "patterns of the directories whose contents go; usr/lib*/gconv may be added"),
    "keep": (
        ("usr/share/i18n/charmaps/UTF-8*", "usr/lib*/gconv/UTF-*.so", "usr/lib*/gconv/gconv-modules*"),
        "patterns of paths that stay",
    ),
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
