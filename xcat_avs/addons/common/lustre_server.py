"""Add a server of Lustre: with or without the vendor's OFED, on ldiskfs or ZFS"""

OPTIONS = {
    "version": ("", "a release of Lustre, for example 2.15.4; with it packages come from the project's repository"),
    "ofed": ("", "the version of the vendor's OFED that it has to be built against; default: that of the kernel"),
    "backend": ("ldiskfs", "ldiskfs or zfs", ("ldiskfs", "zfs")),
    "repository": ("", "a repository to take it from instead"),
    "base": ("https://downloads.whamcloud.com/public", "where the project's repositories are"),
    "e2fsprogs": ("", "the repository of Lustre's e2fsprogs, for ldiskfs; default: the project's, with version"),
    "networks": ("", "networks of LNet, for example o2ib0(ib0),tcp0(eth0)"),
    "packages": ((), "packages to install instead"),
}


def run(ctx):
    """The patched kernel that ldiskfs may need belongs to the base image: an add-on brings modules for the one there."""
    options, image = ctx.options, ctx.image.version
    if image.packages == "deb":
        ctx.fail("Lustre's servers are only packaged for EL; take an EL image, or leave the add-on out of the recipe")
    backend = options["backend"]
    packages = ("lustre", "kmod-lustre", f"kmod-lustre-osd-{backend}", f"lustre-osd-{backend}-mount")
    release, tools = options["repository"], options["e2fsprogs"]
    if options["version"]:
        name = f"lustre-{options['version']}"
        name = f"{name}-ib/MOFED-{options['ofed']}" if options["ofed"] else name
        release = release or f"{options['base']}/lustre/{name}/el{image.major}.{image.minor}/server"
        if backend == "ldiskfs":
            tools = tools or f"{options['base']}/e2fsprogs/latest/el{image.major}"
    with ctx.repository(release) as lent, lent.repository(tools) as both:
        both.install_packages(*(options["packages"] or packages))
    if options["networks"]:
        ctx.install_file(f'options lnet networks="{options["networks"]}"\n', "etc/modprobe.d/lustre.conf")
    ctx.kernel_modules("lustre", "lnet", f"osd_{backend}", *(["ko2iblnd"] if options["ofed"] else []))
