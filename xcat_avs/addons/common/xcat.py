"""Make nodes service nodes of xCAT"""

OPTIONS = {
    "core": ("", "the repository xcat-core"),
    "dependencies": ("", "the repository xcat-dep"),
    "packages": ((), "packages to install instead of the one for service nodes"),
}


def run(ctx):
    deb = ctx.image.version.packages == "deb"
    core, dependencies = ctx.options["core"], ctx.options["dependencies"]
    if deb and core and dependencies:
        ctx.fail("[addon xcat] with debs takes one of core and dependencies; have the other in the image's sources")
    with ctx.repository(core) as one, one.repository(dependencies) as both:
        both.install_packages(*(ctx.options["packages"] or ("xcatsn" if deb else "xCATsn",)))
    # What was made when it was installed is of the machine that built the image: each node makes its own.
    for path in [*ctx.glob("etc/xcat/*.sqlite"), *ctx.glob("etc/xcat/cert/*"), *ctx.glob("etc/xcat/ca/*")]:
        if path.is_file():
            path.unlink()
    ctx.install_file("", "etc/xCATSN")
    ctx.service("xcatd")
