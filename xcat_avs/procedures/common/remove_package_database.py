"""Remove the package database, keeping a list and a stand-in that reads it"""

import re

OPTIONS = {
    "list": ("/etc/avs-packages", "where the list of packages goes"),
    "stand_in": (True, "have rpm -qa and -q NAME, or dpkg -l, answer from the list; for all else they say why not"),
    "files": (
        (
            "usr/lib/sysimage/rpm/*",
            "var/lib/rpm/*",
            "var/lib/yum/*",
            "var/lib/dnf/*",
            "var/lib/zypp/*",
            "var/lib/dpkg/info/*",
            "var/lib/dpkg/status*",
            "var/lib/dpkg/available*",
            "var/lib/apt/extended_states",
        ),
        "patterns of what goes",
    ),
}
# Both with nothing but what POSIX has in the shell itself; a small image may have no sed.
RPM = """#!/bin/sh
# Stands in for rpm: the package database was removed from this image; LIST has what it held.
gone() { echo "rpm: the package database was removed from this image; only -qa and -q NAME work, from LIST" >&2; exit 1; }
name_of() { name=${1%-*}; name=${name%-*}; }
case "${1-} ${2-}" in
    '-qa '* | '-aq '* | '--query --all' | '-q -a' | '-a -q') ;;
    '-q '[!-]* | '--query '[!-]*)
        shift
        code=0
        for wanted; do
            found=
            while read -r line; do
                name_of "$line"
                case "$wanted" in
                    "$name" | "$line" | "${line%.*}" | "${line%-*}") echo "$line"; found=yes ;;
                esac
            done <LIST
            [ "$found" ] || { echo "package $wanted is not installed"; code=1; }
        done
        exit $code ;;
    *) gone ;;
esac
case "$1" in -qa | -aq) shift ;; *) shift 2 ;; esac
for pattern; do
    case "$pattern" in -*) gone ;; esac
done
while read -r line; do
    [ $# -gt 0 ] || echo "$line"
    name_of "$line"
    for pattern; do
        # shellcheck disable=SC2254
        case "$name" in $pattern) echo "$line"; break ;; esac
    done
done <LIST
"""
DPKG = """#!/bin/sh
# Stands in for dpkg and dpkg-query: the package database was removed from this image; LIST has what it held.
gone() { echo "dpkg: the package database was removed from this image; only -l [PATTERN] works, from LIST" >&2; exit 1; }
case "${1-}" in -l | --list) shift ;; *) gone ;; esac
for pattern; do
    case "$pattern" in -*) gone ;; esac
done
echo 'Desired=Unknown/Install/Remove/Purge/Hold'
echo '| Status=Not/Inst/Conf-files/Unpacked/halF-conf/Half-inst/trig-aWait/Trig-pend'
echo '|/ Err?=(none)/Reinst-required (Status,Err: uppercase=bad)'
echo '||/ Name Version Architecture Description'
echo '+++-====-=======-============-==========='
found=
[ $# -gt 0 ] || set -- '*'
while IFS=_ read -r name version architecture; do
    for pattern; do
        # shellcheck disable=SC2254
        case "$name" in $pattern) echo "ii  $name $version $architecture"; found=yes; break ;; esac
    done
done <LIST
[ "$found" ] || { echo "dpkg: no packages found matching $*" >&2; exit 1; }
"""


def run(ctx):
    rpm = ctx.image.version.packages == "rpm"
    lines = sorted(rpm_list(ctx) if rpm else deb_list(ctx))
    if not lines:
        ctx.say("no package database in the image: nothing to remove")
        return
    ctx.install_file("".join(f"{line}\n" for line in lines), ctx.options["list"])
    for pattern in ctx.options["files"]:
        for path in ctx.glob(pattern):
            ctx.remove(str(path.relative_to(ctx.root)))
    ctx.say(f"removed the database of {len(lines)} packages")
    if ctx.options["stand_in"]:
        text = (RPM if rpm else DPKG).replace("LIST", ctx.options["list"])
        main, others = ("/usr/bin/rpm", ["/bin/rpm"]) if rpm else ("/usr/bin/dpkg", ["/usr/bin/dpkg-query"])
        for name in [main, *(name for name in others if ctx.inside(name).is_file())]:
            ctx.install_file(text, name, mode=0o755)


def deb_list(ctx):
    """name_version_architecture of each installed package."""
    status = ctx.inside("/var/lib/dpkg/status", follow=True)
    for paragraph in (status.read_text(errors="replace") if status.is_file() else "").split("\n\n"):
        fields = dict(re.findall(r"^(Package|Status|Version|Architecture): (.*)$", paragraph, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            yield f"{fields['Package']}_{fields['Version']}_{fields['Architecture']}"


def rpm_list(ctx):
    """name-version-release.arch of each installed package."""
    tops = ("usr/lib/sysimage/rpm", "var/lib/rpm")
    found = [path.parent for top in tops for name in ("Packages*", "*.sqlite") for path in ctx.glob(f"{top}/{name}")]
    if not found:
        return []
    start = ctx.log.stat().st_size
    query = ["rpm", "-qa", "--qf", "package=%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}\\n"]
    if ctx.inside("/usr/bin/rpm").is_file() or ctx.inside("/bin/rpm").is_file():
        ctx.chroot(query)  # the image's own rpm knows its database best
    else:
        ctx.run([*query, "--dbpath", str(found[0])])
    lines = re.findall(r"^package=(\S+)$", ctx.log.read_bytes()[start:].decode(errors="replace"), re.MULTILINE)
    if not lines:
        ctx.fail(f"rpm finds no package in {found[0]}; is the database whole?")
    return [line for line in lines if not line.startswith("gpg-pubkey-")]
