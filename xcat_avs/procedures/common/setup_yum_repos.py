"""Install the site's yum repositories"""

OPTIONS = {
    "keep": (False, "keep the repositories that packages of the image brought along"),
}


def run(ctx):
    if ctx.image.version.packages != "rpm":
        ctx.say(f"{ctx.image.osvers} has no yum repositories: nothing to do")
        return
    directory = ctx.inside("/etc/yum.repos.d")
    site = ctx.site_file("yum.repos.d")
    wanted = sorted(site.glob("*.repo")) if site else []
    if not wanted:
        ctx.say("the site has no files/yum.repos.d/*.repo: repositories left as they are")
        return
    if directory.is_dir() and not ctx.options["keep"]:
        for path in directory.glob("*.repo"):
            path.unlink()
    for path in wanted:
        ctx.install_file(path, f"/etc/yum.repos.d/{path.name}")
