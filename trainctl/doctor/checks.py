"""All checks, in the groups in which they are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from trainctl.doctor import damage, data, gpus, leftovers, locks, machine, orphans, packages, room, runs, storage
from trainctl.doctor.finding import Finding
from trainctl.doctor.view import View
from trainctl.home import Home

Check = Callable[[View], Iterator[Finding]]
GROUPS: dict[str, tuple[Check, ...]] = {
    "Runs": (runs.check, damage.check, orphans.check, locks.check, leftovers.check),
    "Home": (storage.check, room.check),
    "GPUs": (gpus.check,),
    "Machine": (machine.check,),
    "Programs": (packages.check,),
    "Data sets": (data.check,),
}


def findings(home: Home) -> Iterator[Finding]:
    """All findings, group by group."""
    view = View(home)
    for group, checks in GROUPS.items():
        for check in checks:
            for finding in check(view):
                yield replace(finding, group=group)
