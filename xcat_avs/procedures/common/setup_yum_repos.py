"""Install the site's yum repositories"""

import re

PACKAGES = "rpm"
OPTIONS = {
    "keep": (False, "keep the repositories that packages of the image brought along"),
    "multilib": (False, "x86_64: leave it to yum or dnf to install 32-bit packages; no: keep them out"),
    "settings": ((), "KEY=VALUE for [main] of yum.conf or dnf.conf"),
    "epel": ("", "URL of an EPEL repository; @OSVERS@, @MAJOR@ and @ARCH@ are replaced"),
    "epel_key": ("", "URL of the key that EPEL's packages are signed with; without one they are not checked"),
    "upgrade": (False, "then bring all packages to the newest version in the repositories of the definition"),
}


def run(ctx):
    if ctx.image.version.packages != "rpm":
        ctx.say(f"{ctx.image.osvers} has no yum repositories: nothing to do")
        return
    values = dict(item.partition("=")[::2] for item in ctx.options["settings"])
    if not all(values.values()):
        ctx.fail(f"[setup_yum_repos] settings = {' '.join(ctx.options['settings'])}: each must be KEY=VALUE")
    zypper = ctx.image.version.family == "sles"
    directory = "zypp/repos.d" if zypper else "yum.repos.d"
    repositories(ctx, directory)
    if ctx.options["epel"]:
        key = ctx.options["epel_key"]
        check = f"gpgcheck=1\ngpgkey={key}\n" if key else "gpgcheck=0\n"
        text = f"[epel]\nname=Extra Packages\nbaseurl={ctx.options['epel']}\nenabled=1\n{check}"
        ctx.install_file(filled(ctx, text), f"/etc/{directory}/epel.repo")
    if not zypper:
        configuration(ctx, values)
    if ctx.options["upgrade"]:
        ctx.upgrade_packages()


def repositories(ctx, directory):
    """Files NAME.repo as they are, and templates NAME.repo.in filled in."""
    site = ctx.site_file(directory)
    wanted = sorted([*site.glob("*.repo"), *site.glob("*.repo.in")]) if site else []
    if not wanted:
        ctx.say(f"the site has no files/{directory}/*.repo: repositories left as they are")
        return
    if not ctx.options["keep"]:
        for path in ctx.glob(f"etc/{directory}/*.repo"):
            path.unlink()
    for path in wanted:
        if path.suffix == ".in":
            ctx.install_file(filled(ctx, path.read_text(encoding="utf-8")), f"/etc/{directory}/{path.stem}")
        else:
            ctx.install_file(path, f"/etc/{directory}/{path.name}")


def filled(ctx, text):
    image = ctx.image
    values = {"OSVERS": image.osvers, "MAJOR": image.version.major, "ARCH": image.osarch}
    return re.sub("@(OSVERS|MAJOR|ARCH)@", lambda match: values[match.group(1)], text)


def configuration(ctx, values):
    """The site's dnf.conf or yum.conf, and the values in its section [main]."""
    version = ctx.image.version
    dnf = version.family == "fedora" or int(version.major) >= 8
    target = "/etc/dnf/dnf.conf" if dnf else "/etc/yum.conf"
    site = ctx.site_file("dnf.conf" if dnf else "yum.conf")
    if site:
        ctx.install_file(site, target)
    exclude = ctx.image.osarch == "x86_64" and not ctx.options["multilib"] and "exclude" not in values
    if exclude and not dnf:
        values["multilib_policy"] = "best"
    if ctx.exists(target):
        ctx.edit(target, lambda text: with_main(text, values, ["*.i?86"] if exclude else []))
    else:
        ctx.say(f"the image has no {target}: nothing is set there")


def with_main(text, values, exclude):
    """text with the values in its section [main], and the patterns added to what that excludes."""
    text = text if text.endswith("\n") or not text else text + "\n"
    head, found, rest = re.match(r"(.*?)(^\[main\][^\n]*\n|\Z)(.*)", text, re.DOTALL | re.MULTILINE).groups()
    main, others = re.match(r"(.*?)(^\[.*|\Z)", rest, re.DOTALL | re.MULTILINE).groups()
    present = re.search(r"^exclude(?:pkgs)?[ \t]*=((?:.*\n)(?:[ \t]+\S.*\n)*)", main, re.MULTILINE)
    words = re.split(r"[\s,]+", present.group(1).strip()) if present else []
    if set(exclude) - set(words):
        values = {**values, "exclude": " ".join(filter(None, [*words, *exclude]))}
    for key in values:
        name = "exclude(?:pkgs)?" if key == "exclude" else re.escape(key)
        main = re.sub(rf"^{name}[ \t]*=.*\n(?:[ \t]+\S.*\n)*", "", main, flags=re.MULTILINE)
    lines = "".join(f"{key}={value}\n" for key, value in values.items())
    return f"{head}{found}{lines}{main}{others}" if found else f"{head}[main]\n{lines}"
