"""Remove the manual pages and their index"""

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
    directories, keep = ctx.options["directories"], ctx.options["keep"]
    ctx.empty_directories(directories, keep)
    if ctx.options["future"]:
        ctx.leave_out(directories, keep)
