"""What a person can do to runs from the dashboard; each returns what to say of it."""

from __future__ import annotations

from engine.rundir import RunDir
from trainctl.home import Home


def stop(run: RunDir) -> str:
    """Ask a run to stop, or kill one that was asked already; what to say of it."""
    from trainctl.launch import processes

    if run.status() == "stopping":
        processes.kill(run)
        return f"{run.id} was killed"
    processes.request_stop(run)
    return f"{run.id} was asked to stop" if run.status() == "stopping" else f"{run.id} is {run.status()}"


def resume(home: Home, run: RunDir) -> str:
    """Queue a run again; what to say of it."""
    from trainctl.launch import folders, scheduler

    folders.requeue(run)
    scheduler.ensure(home)
    return f"{run.id} is queued again"
