"""Add tools for backups: rsync, and what tapes and changers need"""

OPTIONS = {
    "packages": ((), "packages to install instead of those"),
    "repository": ("", "a repository of packages that is used for this besides those of the image"),
}


def run(ctx):
    deb = ctx.image.version.packages == "deb"
    packages = ("rsync", "mt-st", "mtx", "lsscsi", "sg3-utils" if deb else "sg3_utils")
    with ctx.repository(ctx.options["repository"]) as lent:
        lent.install_packages(*(ctx.options["packages"] or packages))
