"""Add ZFS, with modules for the image's own kernel"""

OPTIONS = {
    "dkms": (False, "build the modules in the image (always so with debs)"),
    "import": (True, "import all pools at boot"),
    "arc_max": (0, "bytes of memory that the cache may take; 0: its own default, half of the memory"),
    "packages": ((), "packages to install instead"),
    "repository": ("", "a repository of packages that is used for this besides those of the image"),
}


def run(ctx):
    if ctx.image.version.packages == "deb":
        packages = ("zfs-dkms", "zfsutils-linux")
    else:
        packages = ("zfs-dkms" if ctx.options["dkms"] else "kmod-zfs", "zfs")
    with ctx.repository(ctx.options["repository"]) as lent:
        lent.install_packages(*(ctx.options["packages"] or packages))
    ctx.kernel_modules("zfs")
    if ctx.options["arc_max"]:
        ctx.install_file(f"options zfs zfs_arc_max={ctx.options['arc_max']}\n", "etc/modprobe.d/avs-zfs.conf")
    if ctx.options["import"]:
        # A node has no cache of pools from its last boot, as the default would want.
        for name in ("zfs-import-scan.service", "zfs-import.target", "zfs-mount.service", "zfs.target"):
            ctx.service(name)
