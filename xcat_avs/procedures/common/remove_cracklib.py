"""Remove the dictionaries that passwords are checked against"""

import re

OPTIONS = {
    "files": (
        (
            "usr/share/cracklib/*",
            "usr/lib*/cracklib_dict.*",
            "var/cache/cracklib/**/*",
            "usr/share/dict/cracklib*",
        ),
        "patterns of what goes",
    ),
    "pwquality": (True, "have pam_pwquality do without; else it refuses every new password"),
}


def run(ctx):
    found = [path for pattern in ctx.options["files"] for path in ctx.glob(pattern)]
    found = [path for path in found if path.is_symlink() or not path.is_dir()]
    for path in found:
        path.unlink()
    ctx.say(f"removed {len(found)} files" if found else "nothing to remove")
    conf = ctx.inside("/etc/security/pwquality.conf")
    if ctx.options["pwquality"] and conf.is_file() and not conf.is_symlink():
        text = conf.read_text()
        if not re.search(r"^\s*dictcheck\s*=\s*0\s*$", text, re.MULTILINE):
            text = re.sub(r"^\s*dictcheck\s*=.*\n?", "", text, flags=re.MULTILINE)
            status = conf.stat()
            owner = {"uid": status.st_uid, "gid": status.st_gid}
            text = text if text.endswith("\n") or not text else text + "\n"
            ctx.install_file(f"{text}dictcheck = 0\n", "/etc/security/pwquality.conf", status.st_mode & 0o7777, **owner)
