"""Remove the pages of info"""

OPTIONS = {
    "directories": (
        ("usr/share/info", "usr/local/share/info"),
        "patterns of the directories whose contents go",
    ),
    "keep": ((), "patterns of paths that stay"),
    "future": (True, "have rpm, or dpkg, leave these files out of what is installed later"),
}


def run(ctx):
    directories, keep = ctx.options["directories"], ctx.options["keep"]
    ctx.empty_directories(directories, keep)
    if ctx.options["future"]:
        ctx.leave_out(directories, keep)
