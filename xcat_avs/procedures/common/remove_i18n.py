"""Remove the sources that locales are made from"""

OPTIONS = {
    "directories": (("usr/share/i18n",), "patterns of the directories whose contents go; usr/lib*/gconv may be added"),
    "keep": (
        ("usr/share/i18n/charmaps/UTF-8*", "usr/lib*/gconv/UTF-*.so", "usr/lib*/gconv/gconv-modules*"),
        "patterns of paths that stay",
    ),
}


def run(ctx):
    directories, keep = ctx.options["directories"], ctx.options["keep"]
    ctx.empty_directories(directories, keep)
