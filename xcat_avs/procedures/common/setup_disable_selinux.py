"""Switch SELinux off, or to permissive, in the image"""

OPTIONS = {
    "mode": ("disabled", "disabled or permissive", ("disabled", "permissive")),
}


def run(ctx):
    mode, version = ctx.options["mode"], ctx.image.version
    if not ctx.exists("/etc/selinux/config"):
        ctx.say("the image has no /etc/selinux/config: nothing to switch off")
        return
    ctx.set_values("/etc/selinux/config", {"SELINUX": mode})
    if mode == "disabled" and (version.family == "fedora" or (version.family == "el" and int(version.major) >= 9)):
        ctx.say("here this only loads no policy; selinux=0 on the kernel's command line switches all of it off")
