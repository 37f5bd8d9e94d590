"""Add the OFED of NVIDIA (Mellanox), with modules for the image's own kernel"""

OPTIONS = {
    "version": ("", "its version, for example 23.10-3.2.2.0; needed where no repository is given"),
    "edition": ("basic", "what to install: basic, hpc, all, guest or hypervisor"),
    "repository": ("", "a repository to take it from, instead of the vendor's of that version"),
    "base": ("https://linux.mellanox.com/public/repo/mlnx_ofed", "where the vendor's repositories are"),
    "packages": ((), "packages to install instead"),
}


def run(ctx):
    options, image = ctx.options, ctx.image.version
    where = options["repository"]
    if not where:
        if not options["version"]:
            ctx.fail("[addon mlnx_ofed] needs version, or repository: set one in the recipe")
        osvers = f"rhel{image.major}.{image.minor}" if image.packages == "rpm" else ctx.image.osvers
        where = f"{options['base']}/{options['version']}/{osvers}/{ctx.image.osarch}"
        where += " ./" if image.packages == "deb" else ""
    with ctx.repository(where) as lent:
        lent.install_packages(*(options["packages"] or (f"mlnx-ofed-{options['edition']}",)))
    # The kernel has a mlx5_core of its own; this one comes with the vendor's alone.
    ctx.kernel_modules("mlx_compat", "mlx5_core", "ib_core")
    ctx.service("openibd")
