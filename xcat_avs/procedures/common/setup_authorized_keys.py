"""Install the site's authorized_keys for root and other users"""

import os

OPTIONS = {
    "users": (("root",), "users of the image; each gets authorized_keys.USER of the site, or else authorized_keys"),
}


def run(ctx):
    accounts = {line.split(":")[0]: line.split(":") for line in ctx.read("/etc/passwd").splitlines() if ":" in line}
    for user in ctx.options["users"]:
        source = ctx.site_file(f"authorized_keys.{user}") or ctx.site_file("authorized_keys")
        if source is None:
            ctx.say(f"the site has no files/authorized_keys: none for {user}")
            continue
        if user not in accounts:
            ctx.fail(f"the image has no user {user} in /etc/passwd; make it before this step")
        uid, gid, home = int(accounts[user][2]), int(accounts[user][3]), accounts[user][5]
        directory = ctx.inside(f"{home}/.ssh", follow=True)
        if not ctx.exists(home):
            ctx.inside(home, follow=True).mkdir(parents=True, mode=0o755)
            os.chown(ctx.inside(home, follow=True), uid, gid)
        directory.mkdir(exist_ok=True)
        os.chown(directory, uid, gid)
        directory.chmod(0o700)
        ctx.install_file(source, f"{home}/.ssh/authorized_keys", mode=0o600, uid=uid, gid=gid)
