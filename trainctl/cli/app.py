"""The command line: one file a command under cli/, each imported only when it is called.

Typer builds its parser from a function's signature, so a plain Typer app imports every command for every
start. Here the group knows a name and one line of help for each; the rest is loaded by `LazyCommand`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from trainctl.cli.common import HomeOption, note, show_error
from trainctl.errors import INTERRUPTED, RUN_FAILED, MachineError, Stale, TrainctlError, UsageError, refused

# name: (attribute of trainctl.cli.<name>, help)
COMMANDS = {
    "run": ("run", "Train recipes to the end, with a live view."),
    "recipes": ("recipes", "What can be run: list, show, check, new."),
    "ls": ("ls", "List runs."),
    "show": ("show", "Everything about a run."),
    "logs": ("logs", "What a run printed."),
    "watch": ("watch", "Watch runs live."),
    "compare": ("compare", "Baselines beside their +TRAIN twins."),
    "queue": ("queue", "What waits, and in which order."),
    "stop": ("stop", "Stop runs; they write a checkpoint first."),
    "resume": ("resume", "Go on with stopped, failed or lost runs."),
    "retry": ("retry", "Begin ended runs anew; what they have is kept."),
    "rm": ("rm", "Delete runs."),
    "archive": ("archive", "Hide runs from lists, or bring them back."),
    "tag": ("tag", "Put tags on runs, or take them off."),
    "note": ("note", "Write a note on a run."),
    "eval": ("evaluate", "Evaluate a checkpoint again."),
    "reproduce": ("reproduce", "A table of the TRAIN paper."),
    "plot": ("plot", "Figures as PNG, SVG or PDF."),
    "reindex": ("reindex", "Rebuild the index from the run folders."),
    "doctor": ("doctor", "Check this machine."),
    "tui": ("tui", "Open the dashboard."),
    "serve": ("serve", "The dashboard in a browser."),
}
_GONE = (errno.EPIPE, errno.EIO)  # who read our output has gone: a closed pipe or terminal
_OUTPUT = (*_GONE, errno.ENOSPC, errno.EDQUOT)  # what is said of files of ours names them
_SHOW_WARNING = warnings.showwarning
SETTINGS = {"help_option_names": ["-h", "--help"]}


class TrustsDefaults:
    """A command or a group that takes its parameters' defaults as they are.

    Typer converts them as it does what was typed, with pydantic, whose import takes longer than all else in `ls`.
    """

    def get_params(self, ctx: Any) -> list[Any]:
        """Its parameters, --help among them."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in params:
            convert = getattr(parameter, "get_runtime_param", None)  # not there: another Typer, only slower
            if convert is not None and not isinstance(convert, _Conversion):
                parameter.get_runtime_param = _Conversion(convert)
        return params


class _Conversion:
    """Of a value to what the command expects: by Typer, which `convert` gets ready, if it is not the default."""

    def __init__(self, convert: Callable[[], Any]) -> None:
        self.convert = convert

    def __call__(self) -> _Conversion:
        return self

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value that `param` gets."""
        source = ctx.get_parameter_source(param.name)
        if source is None or source.name != "DEFAULT":
            return self.convert().coerce(value, param=param, ctx=ctx)
        return () if value is None and (param.multiple or param.nargs == -1) else value


class Command(TrustsDefaults, TyperCommand):
    """A command as Typer makes it."""


class Group(TrustsDefaults, TyperGroup):
    """A group of commands as Typer makes it."""


class LazyCommand(TyperCommand):
    """Stands for a command in lists and completions; imports it when its arguments are to be read."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context of the real command, which takes over from here."""
        return self.load().make_context(info_name, args, parent, **extra)

    def load(self) -> Any:
        """The real command or group of commands."""
        name = str(self.name)
        found = getattr(import_module(f"trainctl.cli.{name}"), COMMANDS[name][0])
        if not isinstance(found, typer.Typer):
            single = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=SETTINGS)
            single.command(name, cls=Command)(found)
            found = single
        else:
            found.info.cls = Group
            for command in found.registered_commands:
                command.cls = Command
        return typer.main.get_command(found)


class LazyGroup(Group):
    """The commands of `COMMANDS`, in that order."""

    def __init__(self, **settings: Any) -> None:
        commands = {name: LazyCommand(name, help=text) for name, (_, text) in COMMANDS.items()}
        super().__init__(**{**settings, "commands": commands})


app = typer.Typer(
    cls=LazyGroup,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=SETTINGS,
)


def _version(wanted: bool) -> None:
    if wanted:
        from trainctl import __version__

        print(f"trainctl {__version__}")
        raise typer.Exit()


@app.callback()
def main(
    context: typer.Context,
    home: HomeOption = None,
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Launch, watch and compare adversarial-training runs: a baseline beside its +TRAIN twin.

    Without a command the dashboard opens.
    """
    if home is not None:
        # `trainctl --home X ls` is `trainctl ls --home X`, also for the processes started from here.
        os.environ["TRAINCTL_HOME"] = home
    if context.invoked_subcommand is None and not context.resilient_parsing:
        from trainctl.cli.tui import tui

        tui(home)


def run(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code; a person's mistake never shows a traceback."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # the shell closed it: `>&-`
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - for the rest of the process
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # where the terminal has no Δ a ? keeps the columns
    sys.exit(_run(sys.argv[1:] if arguments is None else arguments))


def _run(arguments: list[str]) -> int:
    command = typer.main.get_command(app)
    warnings.showwarning = _show_warning
    try:
        code = command.main(arguments, prog_name="trainctl", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except TrainctlError as error:
        show_error(error)
        return error.code
    except KeyboardInterrupt:
        return INTERRUPTED
    except typer.Abort:
        return INTERRUPTED
    except Exception as error:
        if hasattr(error, "format_message"):  # the parser's own: unknown option, missing argument, …
            where = getattr(error, "ctx", None)
            usage = UsageError(error.format_message(), f"{where.command_path} --help" if where else "trainctl --help")
            show_error(usage)
            return usage.code
        if isinstance(error, OSError) and error.filename is None and error.errno in _OUTPUT:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the flush at exit must not complain
            if error.errno in _GONE:
                return RUN_FAILED
            told = refused("cannot write what was asked for", error)
            show_error(told)
            return told.code
        if isinstance(error, FileNotFoundError) and not _is_somewhere():
            lost = MachineError("the folder in which this was typed has been deleted", "cd to another one")
            show_error(lost)
            return lost.code
        show_error(_crash(error))
        return RUN_FAILED


def _is_somewhere() -> bool:
    """True if there is a working directory, from which relative paths lead anywhere."""
    try:
        os.getcwd()  # noqa: PTH109 - pathlib's does the same
    except FileNotFoundError:
        return False
    return True


def _show_warning(message: Warning | str, *rest: Any, **more: Any) -> None:
    if isinstance(message, Stale):
        note(f"warning: {message}")
    else:
        _SHOW_WARNING(message, *rest, **more)


def _crash(error: Exception) -> TrainctlError:
    """Keep the traceback of a mistake of ours in the home folder, and say where it is."""
    import tempfile
    import time
    import traceback

    from trainctl.home import find_home

    text = f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} trainctl {' '.join(sys.argv[1:])}\n{traceback.format_exc()}\n"
    folders = [Path(tempfile.gettempdir())]
    with contextlib.suppress(TrainctlError):  # the home may be what is wrong
        folders.insert(0, find_home().path)
    for folder in folders:
        try:
            with open(folder / "crash.log", "a", encoding="utf-8") as file:
                file.write(text)
        except OSError:
            continue
        return TrainctlError(
            f"trainctl itself failed: {type(error).__name__}: {error}",
            f"please report it with the traceback in {folder / 'crash.log'}",
        )
    return TrainctlError(f"trainctl itself failed: {error}", text)
