"""`trainctl recipes`: what can be run, a recipe resolved whole, all mistakes of recipes, a new one to start from."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainctl.cli.common import JsonOption, console, emit_json, note, printable
from trainctl.errors import USAGE, MachineError, UsageError

if TYPE_CHECKING:
    from engine.options import Entry
    from engine.recipe import Recipe
    from trainctl.recipes.load import Resolved

recipes = typer.Typer(
    help="What can be run: list, show, check, new.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="A name, or a path to a .toml file.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Lay a value over the recipe; may be repeated.")
]


@recipes.callback(invoke_without_command=True)
def without_command(context: typer.Context, json: JsonOption = False) -> None:
    """List the shipped recipes, or: show, check, new."""
    if context.invoked_subcommand is None:
        recipes_list(json)
    elif json:
        raise UsageError("--json stands before the command", f"trainctl recipes {context.invoked_subcommand} … --json")


@recipes.command("list")
def recipes_list(json: JsonOption = False) -> None:
    """List the shipped recipes, as without a command."""
    from trainctl.recipes.load import resolve
    from trainctl.recipes.locate import shipped

    rows = [_row(resolve(name)) for name in shipped()]
    if json:
        emit_json(rows)
        return
    from rich.table import Table

    table = Table("name", "data set", "method", "epochs", box=None, pad_edge=False)
    table.columns[3].justify = "right"
    table.add_column("title", no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*(str(row[key]) for key in ("name", "dataset", "method", "epochs", "title")))
    screen = console()
    if not screen.is_terminal:
        screen.width = 200  # nothing is cut off in a pipe
    screen.print(table)


@recipes.command()
def show(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    origin: Annotated[bool, typer.Option("--origin", help="Say behind each value where it was set.")] = False,
    json: JsonOption = False,
) -> None:
    """Print a recipe resolved whole: every key with the value it has."""
    from trainctl.recipes.load import dump, resolve

    resolved = resolve(recipe, overrides or [])
    if json:
        origins = {key: str(place) for key, place in resolved.provenance.items()}
        content = resolved.recipe.model_dump()
        emit_json({"name": resolved.name, "files": resolved.files, "recipe": content, "origins": origins})
        return
    text = dump(resolved.recipe)
    _print_toml(_with_origins(text, resolved) if origin else text)


@recipes.command()
def check(
    files: Annotated[list[str], typer.Argument(metavar="RECIPE…", help="Names, or paths to .toml files.")],
    overrides: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Report every mistake in recipes at once."""
    from trainctl.recipes.load import RecipeProblems, resolve

    mistakes: dict[str, RecipeProblems | None] = {}
    for file in dict.fromkeys(files):
        try:
            resolve(file, overrides or [])
            mistakes[file] = None
        except RecipeProblems as error:
            mistakes[file] = error
        if not json and mistakes[file] is None:
            print(printable(f"ok  {file}"))
    found = [problem for error in mistakes.values() if error for problem in error.problems]
    if json:
        listed = [
            {"recipe": file, "ok": error is None, "problems": [vars(p) for p in error.problems] if error else []}
            for file, error in mistakes.items()
        ]
        emit_json({"ok": not found, "recipes": listed})
        raise typer.Exit(USAGE if found else 0)
    if found:
        raise RecipeProblems(found)


@recipes.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new recipe's name.")],
    base: Annotated[str, typer.Option("--from", metavar="RECIPE", help="The recipe it extends.")] = "digits-trades",
    path: Annotated[
        Path | None, typer.Option("--path", metavar="PATH", help="A folder, or the file itself; else NAME.toml here.")
    ] = None,
) -> None:
    """Write a recipe to start from: it extends another one and lists every key it could change."""
    from trainctl.recipes.load import resolve
    from trainctl.recipes.locate import display, shipped
    from trainctl.recipes.plan import check_name

    stem = name.removesuffix(".toml")
    check_name(stem, "recipe", "choose another; --path says in which folder it is written")
    file = Path(f"{stem}.toml") if path is None else path if path.suffix == ".toml" else path / f"{stem}.toml"
    resolved = resolve(base)
    known = shipped()
    extends = base if base in known else str(Path(base).expanduser().absolute())
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as stream:
            stream.write(_starter(stem, extends, resolved))
    except FileExistsError:
        raise UsageError(f"{display(file)} exists already", "choose another name, or delete it first") from None
    except OSError as error:
        raise MachineError(
            f"cannot write {display(file)}: {error.strerror}", "choose another place with --path"
        ) from None
    note(f"wrote {display(file)}, which extends {base}; run it with: trainctl run {shlex.quote(display(file))}")


def _row(resolved: Resolved) -> dict[str, Any]:
    recipe = resolved.recipe
    return {
        "name": resolved.name,
        "title": recipe.title,
        "description": recipe.description,
        "dataset": recipe.data.dataset,
        "method": recipe.method.name,
        "model": recipe.model.arch,
        "protocol": recipe.eval.protocol,
        "epochs": recipe.schedule.epochs,
        "file": resolved.files[0],
    }


def _print_toml(text: str) -> None:
    screen = console()
    if not screen.is_terminal or screen.no_color:
        print(text, end="")
        return
    from rich.syntax import Syntax

    screen.print(Syntax(text.rstrip("\n"), "toml", theme="ansi_dark", background_color="default", word_wrap=True))


def _with_origins(text: str, resolved: Resolved) -> str:
    """`text` with a comment behind the first line of each value: the file and line that set it, or "default"."""
    from trainctl.recipes.lines import key_lines

    lines = text.split("\n")
    for key, number in key_lines(text).items():
        line = lines[number - 1]
        if "=" in line and not line.startswith("["):
            place = resolved.provenance.get(".".join(key), "default")
            # Inside a multi-line text a comment would become part of it.
            lines[number - 1] = f"# {place}\n{line}" if line.endswith('"""') else f"{line}  # {place}"
    return "\n".join(lines)


def _starter(name: str, extends: str, resolved: Resolved) -> str:
    return "\n".join(_starter_lines(name, extends, resolved)) + "\n"


def _starter_lines(name: str, extends: str, resolved: Resolved) -> Iterator[str]:
    import json

    import tomli_w

    yield from tomli_w.dumps({"title": name, "extends": extends}).splitlines()
    yield ""
    yield "# Every key stands below with the value it has now. To change one, take the # away before it."
    for table, values, descriptions in _tables(resolved.recipe):
        yield f"\n[{table}]"
        for key, value in values.items():
            # On one line; a list of numbers or plain words is the same in JSON as in TOML.
            shown = f"{key} = {json.dumps(value)}" if isinstance(value, list) else tomli_w.dumps({key: value}).strip()
            yield f"# {shown}  # {descriptions[key]}"


def _tables(recipe: Recipe) -> Iterator[tuple[str, dict[str, Any], dict[str, str]]]:
    """Every table of a recipe: its name, its values, and what its keys mean. A term has a table of its own."""
    from engine.options import catalog
    from engine.recipe import SECTIONS

    chosen = {"method": ("Method", recipe.method.name), "data": ("DataSource", recipe.data.dataset)}
    for section, schema in SECTIONS.items():
        values = getattr(recipe, section).model_dump()
        if section == "terms":
            for term, own in values.items():
                yield f"terms.{term}", own, _helps(catalog("Term")[term])
            continue
        fixed = {key: field.description or "" for key, field in schema.model_fields.items()}
        kind, name = chosen.get(section, ("", ""))
        yield section, values, fixed | (_helps(catalog(kind)[name]) if kind else {})


def _helps(entry: Entry) -> dict[str, str]:
    return {key: option.help for key, option in entry.options.items()}
