"""Remove the translations and locales but those of a list"""

import re

OPTIONS = {
    "keep": (("en", "en_US"), "languages and locales that stay; those with a name such as C or POSIX always do"),
    "directories": (
        ("usr/share/locale", "usr/lib/locale", "usr/share/man"),
        "directories whose subdirectories are named by locales",
    ),
    "future": (True, "have rpm, or dpkg, leave other languages out of what is installed later"),
}
LOCALE = re.compile(r"([a-z]{2,3})(_[A-Za-z0-9]+)?([.@].*)?")
# In the image: its own localedef writes what its own library reads. The second part gives the space back.
ARCHIVE = """
localedef --list-archive >/run/all
while read -r name; do
    case ",C,POSIX,$KEEP," in *",${name%%[.@]*},"*) ;; *) echo "$name" ;; esac
done </run/all >/run/gone
[ -s /run/gone ] || exit 0
cd /usr/lib/locale
xargs localedef --delete-from-archive </run/gone
if [ -z "$(localedef --list-archive)" ]; then
    rm -f locale-archive
elif command -v build-locale-archive >/dev/null; then
    mv locale-archive locale-archive.tmpl
    build-locale-archive
fi
"""


def run(ctx):
    keep = set(ctx.options["keep"]) | {name.split("_")[0] for name in ctx.options["keep"]}
    found = [path for top in ctx.options["directories"] for path in ctx.glob(f"{top}/*") if path.is_dir()]
    gone = [path for path in found if other(path.name, keep) and not path.is_symlink()]
    for path in gone:
        ctx.remove(str(path.relative_to(ctx.root)))
    ctx.say(f"removed {len(gone)} directories of other languages" if gone else "no directories of other languages")
    if ctx.glob("usr/lib/locale/locale-archive"):
        if ctx.glob("usr/bin/localedef"):
            ctx.chroot(["sh", "-ec", ARCHIVE], env={"KEEP": ",".join(sorted(keep))})
        else:
            ctx.say("no localedef in the image: usr/lib/locale/locale-archive stays as it is")
    if ctx.options["future"] and ctx.image.version.packages == "rpm":
        ctx.install_file(f"%_install_langs C:{':'.join(sorted(keep))}\n", "/etc/rpm/macros.image-language-conf")
    elif ctx.options["future"]:
        lines = ["path-exclude=/usr/share/locale/*", "path-include=/usr/share/locale/locale.alias"]
        lines += ["path-exclude=/usr/share/man/[a-z][a-z]/*", "path-exclude=/usr/share/man/[a-z][a-z][._@]*/*"]
        lines += [f"path-include=/usr/share/{top}/{name}/*" for name in sorted(keep) for top in ("locale", "man")]
        ctx.install_file("\n".join(lines) + "\n", "/etc/dpkg/dpkg.cfg.d/avs-remove_locales")


def other(name, keep):
    """Whether a directory is named by a locale, and by none of those that stay."""
    match = LOCALE.fullmatch(name)
    return match is not None and re.split("[.@]", name)[0] not in keep
