"""Choose the kernel that nodes boot, among those of the image"""

OPTIONS = {
    "kernelver": (
        "",
        "its release, such as 5.14.0-427.el9.x86_64; default: [image] kernel, else kernelver of the definition, else the newest",
    ),
    "suffix": ("", "what that release ends in besides, such as +rt or .debug; alone: the newest one that ends so"),
    "firmware": (
        "keep",
        "install: add the distribution's package of firmware; keep: leave it as it is",
        ("keep", "install"),
    ),
    "ipv6": (True, "no: switch IPv6 off; yes: take that back"),
}
MODPROBE, SYSCTL = "/etc/modprobe.d/avs-ipv6.conf", "/etc/sysctl.d/90-avs-ipv6.conf"
OFF = {"net.ipv6.conf.all.disable_ipv6": "1", "net.ipv6.conf.default.disable_ipv6": "1"}


def run(ctx):
    firmware(ctx, ctx.options["firmware"])
    ipv6(ctx, ctx.options["ipv6"])
    settings = ctx.settings
    release = ctx.options["kernelver"] or settings.kernel or ctx.image.attributes.get("kernelver", "")
    suffix = ctx.options["suffix"] or settings.kernel_suffix
    if suffix and not release.endswith(suffix):
        release = release + suffix if release else newest(ctx, suffix)
    ctx.take_kernel(release)


def newest(ctx, suffix):
    found = [release for release in ctx.kernels() if release.endswith(suffix)]
    if not found:
        ctx.fail(f"no kernel of the image ends in {suffix!r}; there is {', '.join(ctx.kernels()) or 'none'}")
    return found[-1]


def firmware(ctx, what):
    version = ctx.image.version
    if what == "install":
        old = version.family == "sles" or (version.family == "el" and int(version.major) <= 6)
        other = "firmware-linux-free" if version.family == "debian" else "linux-firmware"
        ctx.install_packages("kernel-firmware" if old else other)


def ipv6(ctx, on):
    """Both ways of switching it off: IPv6 is a module in one kernel and a part of the next one."""
    version = ctx.image.version
    if on:
        ctx.remove(MODPROBE)
        ctx.remove(SYSCTL)
        ctx.edit("/etc/sysctl.conf", lambda text: without(text, *(f"{key} = {value}" for key, value in OFF.items())))
        if ctx.inside("/etc/sysconfig/network", follow=True).is_file():  # SLES has a directory there
            ctx.edit("/etc/sysconfig/network", lambda text: without(text, "NETWORKING_IPV6=no"))
        return
    ctx.install_file("options ipv6 disable=1\n", MODPROBE)
    if version.family == "el" and int(version.major) <= 6:  # which do not read sysctl.d
        ctx.set_values("/etc/sysctl.conf", OFF, " = ")
        ctx.set_values("/etc/sysconfig/network", {"NETWORKING_IPV6": "no"})
    else:
        ctx.install_file("".join(f"{key} = {value}\n" for key, value in OFF.items()), SYSCTL)


def without(text, *lines):
    return "".join(line for line in text.splitlines(True) if line.strip() not in lines)
