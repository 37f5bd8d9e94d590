"""Add Environment Modules: the command module, and where its files are"""

OPTIONS = {
    "modulepath": ((), "directories of module files besides those of the package, for example /cluster/modulefiles"),
    "repository": ("", "a repository of packages that is used for this besides those of the image"),
}
MODULEPATH = "etc/environment-modules/modulespath"


def run(ctx):
    with ctx.repository(ctx.options["repository"]) as lent:
        lent.install_packages("environment-modules")
    if not ctx.options["modulepath"]:
        return
    lines = ctx.read(MODULEPATH).splitlines()
    lines += [directory for directory in ctx.options["modulepath"] if directory not in lines]
    ctx.install_file("\n".join(lines) + "\n", MODULEPATH)
