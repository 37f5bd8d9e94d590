"""Add the package manager and tools to look into a node"""

OPTIONS = {
    "manager": (True, "have yum, dnf, zypper or apt in the image"),
    "tools": (("strace", "gdb", "tcpdump", "lsof"), "packages to add"),
}


def run(ctx):
    version = ctx.image.version
    yum = version.family == "el" and int(version.major) <= 7
    manager = {"debian": "apt", "ubuntu": "apt", "sles": "zypper"}.get(version.family, "yum" if yum else "dnf")
    ctx.install_packages(*([manager] if ctx.options["manager"] else []), *ctx.options["tools"])
