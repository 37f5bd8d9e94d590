"""Install the site's hosts, localtime and resolver files"""

OPTIONS = {
    "files": (
        ("hosts", "hosts.allow", "hosts.deny", "localtime", "resolv.conf"),
        "site files to put into /etc, where the site has them",
    ),
    "home": (True, "make sure there is a /home"),
}


def run(ctx):
    if not (ctx.root / "etc").is_dir():
        ctx.say("no /etc in the image: nothing to prepare")
        return
    found = {name: ctx.site_file(name) for name in ctx.options["files"]}
    for name, path in found.items():
        if path:
            ctx.install_file(path, f"/etc/{name}")
    home = ctx.inside("/home")
    if ctx.options["home"] and not home.is_dir() and not home.is_symlink():
        home.mkdir(mode=0o755)
