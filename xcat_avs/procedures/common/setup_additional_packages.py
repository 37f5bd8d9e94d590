"""Add the packages of lists, and remove those that the lists say"""

from pathlib import Path

OPTIONS = {
    "lists": ((), "package lists: names of site files, or absolute paths, in the syntax of pkglist"),
    "packages": ((), "more packages"),
}


def run(ctx):
    paths = []
    for name in ctx.options["lists"]:
        path = Path(name) if name.startswith("/") else ctx.site_file(name)
        if path is None:
            ctx.fail(f"the site has no files/{name}, which [setup_additional_packages] lists names")
        paths.append(path)
    found = ctx.read_pkglist(*paths)
    wanted = [*found.include, *(name for name in ctx.options["packages"] if name not in found.include)]
    if wanted:
        ctx.install_packages(*wanted)
    present = ctx.packages()
    unwanted = [name for name in found.exclude if name in present]
    if unwanted:  # last: it may have come with one that was wanted
        ctx.remove_packages(*unwanted)
        left = ctx.packages()
        lost = [name for name in wanted if name in present and name not in left]
        if lost:
            ctx.fail(
                f"{', '.join(lost)} cannot be without {', '.join(unwanted)}; fix {', '.join(map(str, found.files))}"
            )
    if not wanted and not unwanted:
        ctx.say("no packages to add or to remove")
