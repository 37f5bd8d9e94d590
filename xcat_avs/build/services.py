"""The services of an image: systemd's units, and init scripts by the image's own programs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

from xcat_avs.build.imagetree import ImageTree
from xcat_avs.errors import AvsError, nearest
from xcat_avs.system import command

UNITS = ("etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system")
SCRIPTS = ("etc/init.d", "etc/rc.d/init.d")
UNIT_NAME = re.compile(r".*\.(service|socket|target|timer|path|mount|automount)")
# systemctl --root would follow a link of the image to the host.
WRITTEN = ("etc", "etc/systemd", "etc/systemd/system", "etc/systemd/system/*.wants", "etc/systemd/system/*.requires")


class ImageServices(ImageTree):
    """What starts at boot."""

    def has_service(self, name: str) -> bool:
        """Whether the image has a systemd unit or an init script of that name."""
        return bool(self._unit_directories(name)) or self._has_script(name)

    def unit(self, name: str) -> str:
        """The text of the systemd unit `ssh.service`, as the image's systemd finds it; "" where there is none."""
        return next(filter(None, (self.read(f"/{top}/{name}") for top in UNITS)), "")

    def service(self, name: str, enable: bool = True) -> None:
        """Have a service start at boot, or not: a systemd unit, or an init script by the image's own programs.

        Raises AvsError where the image has no such service.
        """
        directories = self._unit_directories(name)
        if directories:
            verb = "enable" if enable else "disable"
            # An init script beside the unit is of no use to systemd, and the host's tools may not fit it.
            env = {"SYSTEMCTL_SKIP_SYSV": "1"}
            if self._units_are_here(directories) and command.find("systemctl"):
                self.run(["systemctl", f"--root={self.root}", verb, name], env)
            else:  # a container to build in may have no systemd
                self.chroot(["systemctl", verb, name], env)
        elif self._has_script(name) and self.exists("/sbin/chkconfig"):
            self.chroot(["chkconfig", name, "on" if enable else "off"])
        elif self._has_script(name) and self.exists("/usr/sbin/update-rc.d"):
            self.chroot(["update-rc.d", name, "defaults"])
            self.chroot(["update-rc.d", name, "enable" if enable else "disable"])
        else:
            raise AvsError(f"the image has no service {name}; is its package installed?")

    def _unit_directories(self, name: str) -> list[str]:
        """Where the image has a unit of that name; getty@tty1.service is one of getty@.service."""
        unit = name if UNIT_NAME.fullmatch(name) else f"{name}.service"
        names = {unit, re.sub(r"@.*\.", "@.", unit)}
        return [top for top in UNITS if any(os.path.lexists(self.inside(f"{top}/{item}")) for item in names)]

    def _has_script(self, name: str) -> bool:
        return self.exists(f"/etc/init.d/{name}")

    def _units_are_here(self, directories: Sequence[str]) -> bool:
        """Whether the host's systemctl, which follows links on the host, reads and writes where the image has its units."""

        def same(path: str) -> bool:
            return os.path.realpath(self.root / path) == os.path.realpath(self.inside(path, follow=True))

        top = "etc/systemd/system"
        written = [
            top,
            *(f"{top}/{path.name}" for kind in ("wants", "requires") for path in self.glob(f"{top}/*.{kind}")),
        ]
        return all(map(same, written)) and any(map(same, directories))

    def switch_services(self, names: Iterable[str], enable: bool, mask: bool = False, missing: str = "error") -> None:
        """Have services start at boot, or not, now and after their packages are updated.

        mask: keep them from being started by anything else as well. missing: `ignore` passes over those that the
        image has not got; else AvsError names those that it has.
        """
        verb, units, scripts = "enable" if enable else "disable", set(), []
        for name in names:
            unit = name if "." in name else f"{name}.service"
            if self._unit_directories(unit):
                units.add(unit)
            elif any(os.path.lexists(self.inside(f"{top}/{name}")) for top in SCRIPTS):
                scripts.append(name)
            elif missing == "ignore":
                self.say(f"no service {name} in the image: left out")
            else:
                raise AvsError(self._unknown(name))
        if not units and not scripts:
            self.say(f"no services to {verb}: nothing to do")
        if units:
            for path in [path for pattern in WRITTEN for path in self.glob(pattern) if path.is_symlink()]:
                raise AvsError(
                    f"/{path.relative_to(self.root)} of the image is a link; systemctl needs a directory there"
                )
            # The preset holds when a package is installed or updated later.
            preset = "".join(f"{verb} {unit}\n" for unit in sorted(units))
            self.install_file(preset, f"/etc/systemd/system-preset/10-avs-{verb}.preset")
            for word in (verb, *(["mask"] if mask else [])):
                self.run(["systemctl", f"--root={self.root}", word, *sorted(units)])
            self.run(["systemctl", f"--root={self.root}", "is-enabled", *sorted(units)], check=False)  # for the log
        for name in scripts:
            self._switch_script(name, enable, mask)

    def _switch_script(self, name: str, enable: bool, mask: bool) -> None:
        if self.exists("/sbin/chkconfig") or self.exists("/usr/sbin/chkconfig"):
            orders = [["--add", name], [name, "on"]] if enable else [["--del", name] if mask else [name, "off"]]
            program = "chkconfig"
        else:
            off = ["-f", name, "remove"] if mask else [name, "disable"]
            orders = [[name, "defaults"], [name, "enable"]] if enable else [off]
            program = "update-rc.d"
        for words in orders:
            self.chroot([program, *words])

    def _unknown(self, name: str) -> str:
        """An error that names the services there are, the nearest first."""
        tops = [self.inside(f"{top}/x").parent for top in UNITS + SCRIPTS]
        found = {entry for top in tops if top.is_dir() for entry in os.listdir(top)}
        known = sorted(
            {entry.replace(".service", "") for entry in found if entry.endswith(".service") or "." not in entry}
        )
        return f"no service {name} in the image{nearest(name, known)}; there are {', '.join(known)}"
