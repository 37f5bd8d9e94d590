"""Set up GRUB for nodes that the image is installed to"""

OPTIONS = {
    "packages": ((), "packages of GRUB; default: that of the distribution for the architecture's usual firmware"),
    "cmdline": ("", "the kernel's command line, but for root="),
    "timeout": (5, "seconds that the menu is shown"),
    "serial": ("", "serial line for the menu, as GRUB_SERIAL_COMMAND has it, such as serial --unit=0 --speed=115200"),
}
DEB = {"x86_64": "grub-pc", "aarch64": "grub-efi-arm64", "arm64": "grub-efi-arm64", "ppc64el": "grub-ieee1275"}
RPM = {"x86_64": "grub2-pc", "aarch64": "grub2-efi-aa64", "ppc64le": "grub2-ppc64le"}


def run(ctx):
    image, version = ctx.image, ctx.image.version
    if version.family == "el" and int(version.major) <= 6:
        ctx.install_packages(*(ctx.options["packages"] or ("grub",)))
        ctx.say("GRUB of EL 5 and 6 has no /etc/default/grub; what installs the image writes grub.conf")
        return
    known = {"package": "grub2"} if version.family == "sles" else DEB if version.packages == "deb" else RPM
    package = known.get("package") or known.get(image.osarch)
    if not ctx.options["packages"] and package is None:
        ctx.fail(f"no package of GRUB is known for {image.osarch}; set packages in [setup_grub]")
    ctx.install_packages(*(ctx.options["packages"] or (package,)))
    values = {"GRUB_TIMEOUT": str(ctx.options["timeout"])}
    if ctx.options["cmdline"]:
        values["GRUB_CMDLINE_LINUX"] = quoted(ctx, ctx.options["cmdline"])
    if ctx.options["serial"]:
        values.update(GRUB_TERMINAL='"serial console"', GRUB_SERIAL_COMMAND=quoted(ctx, ctx.options["serial"]))
    ctx.set_values("/etc/default/grub", values)


def quoted(ctx, text):
    if any(sign in text for sign in '"\\`$\n'):
        ctx.fail(f"[setup_grub] {text!r}: /etc/default/grub is read by a shell; leave out quotes, $, ` and backslashes")
    return f'"{text}"'
