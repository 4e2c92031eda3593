"""The machine: cores, memory, limits, threads, and whether a log-out ends what runs on."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

from trainctl.doctor import programs
from trainctl.doctor.finding import GIB, OK, WARNING, Finding, size
from trainctl.doctor.view import View
from trainctl.launch import slots

LOW_MEMORY = 1 * GIB  # bytes
FEW_FILES = 512
ROOT = Path("/")


def check(view: View) -> Iterator[Finding]:
    """Everything but GPUs and disks."""
    yield Finding("cores", OK, str(slots.cores()))
    yield from _memory()
    yield from _files()
    yield from _threads()
    yield from log_out(view)


def _memory() -> Iterator[Finding]:
    import psutil

    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    detail = f"{size(memory.available)} of {size(memory.total)} available"
    if swap.total and swap.used > 0.9 * swap.total and memory.available < 0.1 * memory.total:
        detail += f", and swap is full ({size(swap.used)})"
    elif memory.available >= LOW_MEMORY:
        yield Finding("memory", OK, detail)
        return
    yield Finding("memory", WARNING, detail, "run fewer at a time (--jobs); the kernel kills what asks for more")


def _files() -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= FEW_FILES:
        yield Finding("open files", OK, "any number" if soft == resource.RLIM_INFINITY else f"{soft} at most")
    else:
        more = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
        yield Finding("open files", WARNING, f"{soft} at most (ulimit -n)", f"ulimit -n {more}")


def _threads() -> Iterator[Finding]:
    """What in the environment works against the number of threads that each run is given."""
    env, wrong = os.environ, []
    limit = env.get("OMP_THREAD_LIMIT", "")
    if limit.isdecimal() and int(limit) < slots.cores():
        wrong.append(("OMP_THREAD_LIMIT", f"lets no run have more than {limit} threads, whatever run.threads says"))
    for name in ("OMP_PROC_BIND", "GOMP_CPU_AFFINITY", "KMP_AFFINITY", "OMP_PLACES"):
        if env.get(name, "").lower() not in ("", "false", "none", "disabled"):
            wrong.append((name, "binds the threads of runs side by side to the same cores"))
    if env.get("OMP_WAIT_POLICY", "").lower() == "active":
        wrong.append(("OMP_WAIT_POLICY", "=active lets waiting threads spin, at the cost of runs beside"))
    for name, why in wrong:
        yield Finding("threads", WARNING, f"{name}{'' if why.startswith('=') else ' '}{why}", f"unset {name}")
    if not wrong:
        yield Finding("threads", OK, "nothing in the environment works against run.threads")


def log_out(view: View, root: Path = ROOT, user: str = "") -> Iterator[Finding]:
    """Whether a log-out ends runs that go on without a terminal, as logind.conf(5) and the place of the runs say.

    What is in the session's scope ends with KillUserProcesses=yes, lingering or not. What is in a unit of the user's
    own manager (many desktops start terminals there) ends with the last session, unless the user lingers.
    """
    user = user or _user()
    login = _settings(root)
    if not login:
        return
    kills = login.get("killuserprocesses", "no") in ("yes", "true", "on", "1")
    only, spared = login.get("killonlyusers", "").split(), login.get("killexcludeusers", "root").split()
    kills = kills and user.lower() not in spared and (not only or user.lower() in only)
    pids = ["self", *(str(worker.pid) for worker in view.workers)]
    in_manager = any("/user@" in _cgroup(root, pid) for pid in pids)
    if not in_manager and not kills:
        yield Finding("log-out", OK, "systemd leaves runs alone (KillUserProcesses=no)")
        return
    answer = programs.ask("loginctl", "show-user", user, "-p", "Linger")
    lingers = answer is not None and answer.good and "linger=yes" in answer.text.lower()
    if not in_manager:
        first = "" if lingers else "loginctl enable-linger, then "
        hint = f"{first}start it as `systemd-run --user --scope trainctl …`"
        yield Finding("log-out", WARNING, "systemd kills what is left at log-out (KillUserProcesses=yes)", hint)
    elif not lingers:
        detail = "runs started here are in a unit of your own systemd, which ends when you log out"
        yield Finding("log-out", WARNING, detail, "loginctl enable-linger")
    else:
        yield Finding("log-out", OK, "runs stay: you linger (loginctl)")


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _cgroup(root: Path, pid: str) -> str:
    try:
        return (root / "proc" / pid / "cgroup").read_text(errors="replace")
    except OSError:
        return ""


def _settings(root: Path) -> dict[str, str]:
    """[Login] of logind.conf and its drop-ins, in small letters; {} where there is no logind.

    One main file counts, and of drop-ins of one name the first: /etc before /run before /usr (systemd.unit(5)).
    """
    places = [root / place / "systemd" for place in ("etc", "run", "usr/local/lib", "usr/lib")]
    main = next((place / "logind.conf" for place in places if (place / "logind.conf").is_file()), None)
    drops: dict[str, Path] = {}
    for place in reversed(places):
        drops |= {file.name: file for file in (place / "logind.conf.d").glob("*.conf")}
    files = [*([main] if main else []), *(drops[name] for name in sorted(drops))]
    found = {"": "logind"} if files else {}
    for file in files:
        inside = True
        try:
            text = file.read_text(errors="replace")
        except OSError:
            continue
        for line in map(str.strip, text.lower().splitlines()):
            if line.startswith("["):
                inside = line == "[login]"
            elif inside and "=" in line and line[0] not in "#;":
                key, _, value = line.partition("=")
                found[key.strip()] = value.strip()
    return found
