"""Add the client of Lustre, with modules for the image's own kernel"""

OPTIONS = {
    "version": ("", "a release of Lustre, for example 2.15.4; with it packages come from the project's repository"),
    "ofed": ("", "the version of the vendor's OFED that it has to be built against; default: that of the kernel"),
    "repository": ("", "a repository to take it from instead"),
    "base": ("https://downloads.whamcloud.com/public/lustre", "where the project's repositories are"),
    "dkms": (False, "build the modules in the image (always so with debs)"),
    "networks": ("", "networks of LNet, for example o2ib0(ib0),tcp0(eth0)"),
    "packages": ((), "packages to install instead"),
}


def run(ctx):
    if ctx.image.version.packages == "deb":
        packages = ("lustre-client-modules-dkms", "lustre-client-utils")
    else:
        packages = ("lustre-client", "lustre-client-dkms" if ctx.options["dkms"] else "kmod-lustre-client")
    with ctx.repository(repository(ctx)) as lent:
        lent.install_packages(*(ctx.options["packages"] or packages))
    if ctx.options["networks"]:
        ctx.install_file(f'options lnet networks="{ctx.options["networks"]}"\n', "etc/modprobe.d/lustre.conf")
    ctx.kernel_modules("lustre", "lnet")


def repository(ctx):
    """The project's repository of the release, for the image's osvers."""
    version, ofed = ctx.options["version"], ctx.options["ofed"]
    if ctx.options["repository"] or not version:
        return ctx.options["repository"]
    image = ctx.image.version
    if image.packages == "deb":
        return f"{ctx.options['base']}/lustre-{version}/{image.distribution}{image.major}{image.minor}/client ./"
    release = f"lustre-{version}-ib/MOFED-{ofed}" if ofed else f"lustre-{version}"
    return f"{ctx.options['base']}/{release}/el{image.major}.{image.minor}/client"
