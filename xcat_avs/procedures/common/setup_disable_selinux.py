"""Switch SELinux off, or to permissive, in the image"""

OPTIONS = {
    "mode": ("disabled", "disabled or permissive"),
}


def run(ctx):
    mode, version = ctx.options["mode"], ctx.image.version
    if mode not in ("disabled", "permissive"):
        ctx.fail(f"[setup_disable_selinux] mode = {mode}; it takes disabled or permissive")
    if not ctx.exists("/etc/selinux/config"):
        ctx.say("the image has no /etc/selinux/config: nothing to switch off")
        return
    ctx.set_values("/etc/selinux/config", {"SELINUX": mode})
    if mode == "disabled" and version.family in ("el", "fedora") and (version.family, int(version.major)) >= ("el", 9):
        ctx.say(
            "from EL 9 and Fedora 34 on this loads no policy; selinux=0 on the kernel's command line saves the rest"
        )
