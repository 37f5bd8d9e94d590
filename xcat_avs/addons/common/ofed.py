"""Add InfiniBand and RDMA, as the distribution has them"""

OPTIONS = {
    "packages": ((), "packages to install instead"),
    "modules": (("ib_ipoib", "rdma_ucm"), "modules to load at boot"),
    "opensm": (False, "run a subnet manager"),
    "repository": ("", "a repository of packages that is used for this besides those of the image"),
}


def run(ctx):
    deb = ctx.image.version.packages == "deb"
    tools = ("ibverbs-utils", "ibverbs-providers") if deb else ("libibverbs", "libibverbs-utils")
    packages = ("rdma-core", *tools, "infiniband-diags", "perftest")
    extra = ("opensm",) if ctx.options["opensm"] else ()
    with ctx.repository(ctx.options["repository"]) as lent:
        lent.install_packages(*(ctx.options["packages"] or packages), *extra)
    if ctx.options["modules"]:
        ctx.kernel_modules(*ctx.options["modules"])
        ctx.install_file("".join(f"{name}\n" for name in ctx.options["modules"]), "etc/modules-load.d/avs-ofed.conf")
    if ctx.options["opensm"]:
        ctx.service("opensm")
