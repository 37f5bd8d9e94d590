"""Build the module chos from its source: an example of an add-on with a kernel module of the site's own"""

import shutil

# The pattern: the source is a site file; it is built in the image, by the image's compiler, for the image's kernels,
# and does not stay. What the add-on then is, is the module, its settings, and the compiler where the base has none.
OPTIONS = {
    "source": ("chos", "the site's directory of the source, with a Makefile of kbuild"),
    "module": ("chos", "the module that is built"),
    "build": (("gcc", "make"), "packages that it is built with; the base image has to have the headers of its kernel"),
    "repository": ("", "a repository of packages that is used for this besides those of the image"),
    "environments": ((), "what users may choose, each as NAME:DIRECTORY, for /etc/chos.conf"),
}
WORK = "usr/src/avs-module"


def run(ctx):
    source, module = ctx.site_file(ctx.options["source"]), ctx.options["module"]
    if source is None or not source.is_dir():
        ctx.fail(
            f"[addon chos] source = {ctx.options['source']}: there is no such directory in INSTALLDIR/custom/avs/files; put the source there"
        )
    with ctx.repository(ctx.options["repository"]) as lent:
        lent.install_packages(*ctx.options["build"])
    work = ctx.inside(WORK)
    shutil.copytree(source, work)
    try:
        for release in releases(ctx):
            ctx.chroot(["make", "-C", f"/lib/modules/{release}/build", f"M=/{WORK}", "modules"])
            if not (work / f"{module}.ko").exists():
                ctx.fail(f"its Makefile made no module {module}.ko for kernel {release}")
            ctx.install_file(work / f"{module}.ko", f"lib/modules/{release}/extra/{module}.ko")
            ctx.chroot(["make", "-C", f"/lib/modules/{release}/build", f"M=/{WORK}", "clean"])
    finally:
        shutil.rmtree(work)
    ctx.kernel_modules(module)
    ctx.install_file(f"{module}\n", "etc/modules-load.d/avs-chos.conf")
    lines = [
        f"{name}:{directory}\n" for name, _, directory in (item.partition(":") for item in ctx.options["environments"])
    ]
    if lines:
        ctx.install_file("".join(["%SHELLS\n", *lines]), "etc/chos.conf")
    ctx.inside("chos").mkdir(exist_ok=True)


def releases(ctx):
    """The image's kernels that have what a module is built with; never the one that runs here."""
    found = [
        path.name
        for path in ctx.inside("lib/modules").iterdir()
        if (path / "build").is_symlink() or (path / "build").is_dir()
    ]
    if not found:
        ctx.fail("no kernel of the image has its headers (lib/modules/RELEASE/build); add them to the base image")
    return found
