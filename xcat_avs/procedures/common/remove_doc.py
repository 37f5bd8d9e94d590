"""Remove the documentation of packages"""

OPTIONS = {
    "directories": (
        ("usr/share/doc", "usr/share/gtk-doc", "usr/local/share/doc"),
        "patterns of the directories whose contents go",
    ),
    "keep": (("usr/share/doc/*/copyright",), "patterns of paths that stay"),
    "future": (True, "have rpm, or dpkg, leave these files out of what is installed later"),
}


def run(ctx):
    directories, keep = ctx.options["directories"], ctx.options["keep"]
    ctx.empty_directories(directories, keep)
    if ctx.options["future"]:
        ctx.leave_out(directories, keep)
