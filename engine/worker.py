"""One process for one run: load the data, build the networks, train, evaluate, and say how it ended."""

from __future__ import annotations

import contextlib
import hashlib
import resource
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from engine import checkpoint, machine, narrate, options
from engine.attacks.graphs import Slower
from engine.checkpoint import CheckpointError
from engine.data.base import Splits
from engine.data.batches import steps_an_epoch
from engine.data.load import load as load_data
from engine.ending import DONE, USAGE, ending
from engine.evaluate import embedding
from engine.evaluate.protocols import threat
from engine.evaluate.run import Stopped, evaluate_checkpoint
from engine.events import EventLog, of_kind
from engine.lifecycle import Lifecycle
from engine.machine import Machine
from engine.methods.base import Method
from engine.networks import Networks, build_networks, compile_networks
from engine.recipe import InvalidRecipe, Recipe, check, own_options
from engine.regularizers.base import Regularizer, Term
from engine.regularizers.topology import TopologyTerm
from engine.rundir import RunDir, content, replace
from engine.task import Task
from engine.train import Trainer, parameters
from engine.weights import load_weights


def train(folder: Path) -> int:
    """Carry out the run in `folder`, from its last checkpoint if it has one. Returns the exit code."""
    return carry_out(folder, _run)


def carry_out(folder: Path, work: Callable[[Lifecycle, RunDir], None]) -> int:
    """Do `work` on the run in `folder` unless it is done, and write down how it ended. Returns the exit code."""
    rundir = RunDir(folder)
    with Lifecycle(rundir) as life:
        if rundir.json("exit.json").get("status") == "done":
            print(f"{folder}: this run is done")
            return DONE
        try:
            rundir.archive_exit()
            work(life, rundir)
        except BaseException as error:
            ended = ending(error, life)
            return life.end(ended.status, ended.code, ended.reason, ended.hint)
        return life.end("done", DONE, peak_memory_mb=_peak_memory())


def evaluate(folder: Path, attacks: Sequence[str], which: Sequence[str]) -> int:
    """Evaluate checkpoints of a run again, with `attacks` instead of the recipe's; the run's status stays as it is."""
    rundir = RunDir(folder)
    with Lifecycle(rundir, record=False) as life:
        try:
            table = read_recipe(rundir).model_dump()
            table["eval"]["attacks"] = list(attacks)
            recipe = check(table)
            setup = machine.prepare(recipe.run, recipe.model)
            splits, networks = _load(recipe, setup)
            log = EventLog(rundir.events, narrate.say)
            with _told(lambda message: log.write("warning", message=message)):
                _evaluate(recipe, splits, networks, setup, life, log, which)
        except BaseException as error:
            return _refused(error, life)
        return DONE


def embed(folder: Path, which: Sequence[str], classes: int, per_class: int) -> int:
    """Store t-SNE embeddings of checkpoints, of `per_class` images of each of `classes` classes, without an event."""
    rundir = RunDir(folder)
    with Lifecycle(rundir, record=False) as life:

        def poll() -> None:
            if life.should_stop():
                raise Stopped

        try:
            recipe = read_recipe(rundir)
            setup = machine.prepare(recipe.run, recipe.model)
            splits, networks = _load(recipe, setup)
            for name in dict.fromkeys(which):
                written = _restore(networks, recipe, rundir, name)
                made = embedding.embed(
                    recipe=recipe, splits=splits, network=networks.adversarial, checkpoint=written, rundir=rundir,
                    device=setup.device, classes=classes, per_class=per_class, poll=poll,
                )  # fmt: skip
                print(f"t-SNE of {name}: {'done' if made else 'there already'}")
        except BaseException as error:
            return _refused(error, life)
        return DONE


def _refused(error: BaseException, life: Lifecycle) -> int:
    """Say why work on a finished run came to nothing; returns the exit code."""
    ended = ending(error, life)
    print(f"error: {ended.reason}\n{ended.hint}".strip(), file=sys.stderr)
    return USAGE if isinstance(error, CheckpointError | InvalidRecipe) else ended.code


def _run(life: Lifecycle, rundir: RunDir) -> None:
    recipe = read_recipe(rundir)
    life.limit(recipe.run.max_hours)
    setup = machine.prepare(recipe.run, recipe.model)
    environment = machine.environment(recipe, setup)
    rundir.write_json("env.json", environment)
    rundir.checkpoints.mkdir(exist_ok=True)
    _sweep(rundir)
    if not rundir.events.exists():
        rundir.events.touch()

    log = EventLog(rundir.events, narrate.say)
    recipe_hash = hashlib.sha256(content(rundir.recipe)).hexdigest()
    trainer = make_trainer(recipe, setup, life, log, recipe_hash)
    splits, networks = trainer.splits, trainer.networks
    position = trainer.resume()
    life.began(trainer.progress.step if position is not None else None)
    # Events behind the checkpoint tell of steps that are about to be taken again.
    if rundir.events.stat().st_size > (position or 0):
        log.close()
        replace(rundir.events, rundir.events.read_bytes()[: position or 0])
        trainer.log = log = EventLog(rundir.events, narrate.say)
    # What is found out anew by a resumed run was told by the one before it, if that came so far.
    with open(rundir.events, "rb") as lines:
        known = {str(event.get("message")) for event in of_kind(lines, "warning")}

    def tell(message: str) -> None:
        if message in known:
            print(f"warning: {message}", flush=True)
        else:
            log.write("warning", message=message)

    steps = recipe.schedule.epochs * steps_an_epoch(len(splits.train), recipe.optim.batch_size)
    wanted = machine.compiles(recipe.run, setup.device, steps)
    trouble = compile_networks(networks, setup.device) if wanted else ""
    compiled = wanted and not trouble
    if compiled:
        rundir.write_json("env.json", {**environment, "compiled": True})
    if position is None:
        say_start(log, recipe, setup, splits, networks, compiled=compiled)
    if trouble:
        tell(f"run.compile = {recipe.run.compile}, but torch.compile failed, so without it: {trouble}")
    with _told(tell):
        trainer.run()
        with networks.eager():
            _evaluate(recipe, splits, networks, setup, life, log, recipe.eval.checkpoints)


@contextmanager
def _told(tell: Callable[[str], object]) -> Iterator[None]:
    """Within it `tell` is called with whatever turned out not to be possible fast, once each."""
    told: set[str] = set()
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: Any = None,
            line: Any = None,
        ) -> None:
            if not issubclass(category, Slower):
                others(message, category, filename, lineno, file, line)
            elif str(message) not in told:
                told.add(str(message))
                tell(str(message))

        warnings.simplefilter("always", Slower)
        warnings.showwarning = show
        yield


def _sweep(rundir: RunDir) -> None:
    """Remove the unfinished files of engines that were killed while they wrote; the folder is ours now."""
    own = ("env.json", "events.jsonl", "heartbeat.json", "exit.json")  # launch.json may be being written this moment
    for pattern in ("checkpoints/.*.tmp", "checkpoints/.*.kept", "eval/.*.tmp", *(f".{name}.*.tmp" for name in own)):
        for left in rundir.path.glob(pattern):
            with contextlib.suppress(OSError):
                left.unlink()


def read_recipe(rundir: RunDir) -> Recipe:
    """The checked recipe of a run folder. Raises CheckpointError if it cannot be read, InvalidRecipe for mistakes."""
    try:
        table = rundir.table()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{rundir.recipe}: cannot be read ({error})") from None
    return check(table)


def _method(recipe: Recipe) -> Method:
    """The chosen method with its options."""
    found = options.load_class(options.catalog("Method")[recipe.method.name])
    method = found(**own_options(recipe, "method"))
    assert isinstance(method, Method)
    return method


def _regularizers(recipe: Recipe, task: Task) -> dict[str, Regularizer]:
    """TRAIN's term and those of [terms], by name."""
    found: dict[str, Regularizer] = {}
    if recipe.topology.enabled:
        found["topology"] = TopologyTerm(recipe.topology, recipe.schedule.epochs, len(task.labels), task.device)
    for name, settings in recipe.terms.model_dump().items():
        term = options.load_class(options.catalog("Term")[name])(**settings)
        assert isinstance(term, Term)
        found[name] = term.prepared(task)
    return found


def make_trainer(recipe: Recipe, setup: Machine, life: Lifecycle, log: EventLog, recipe_hash: str = "") -> Trainer:
    """Data, networks, method and terms of a run, ready to train from the first step."""
    splits, networks = _load(recipe, setup)
    channels, height, width = splits.train.images.shape[1:]
    image, labels = (channels, height, width), splits.train.labels.to(setup.device)
    task = Task(recipe, splits.classes, image, labels, *networks.widths(image), setup.device)
    method, regularizers = _method(recipe).prepared(task), _regularizers(recipe, task)
    return Trainer(recipe, method, regularizers, splits, networks, setup, life, log, recipe_hash)


def _load(recipe: Recipe, setup: Machine) -> tuple[Splits, Networks]:
    splits = load_data(recipe)
    networks = build_networks(recipe, splits, setup.device)
    if networks.frozen and networks.standard is not None and recipe.standard.weights:
        path = Path(recipe.standard.weights).expanduser()
        load_weights(networks.standard, path, pickled=recipe.standard.torch_weights)
    return splits, networks


def say_start(
    log: EventLog, recipe: Recipe, setup: Machine, splits: Splits, networks: Networks, *, compiled: bool
) -> None:
    """Write the start event."""
    batch, part = recipe.optim.batch_size, recipe.run.micro_batch
    log.write(
        "start", method=recipe.method.name, topology=recipe.topology.enabled, dataset=recipe.data.dataset,
        device=str(setup.device), threads=setup.threads, compiled=compiled,
        precision="bfloat16" if setup.bfloat16 else "float32", epochs=recipe.schedule.epochs,
        steps_per_epoch=steps_an_epoch(len(splits.train), batch), train=len(splits.train), test=len(splits.test),
        selection={**asdict(threat(recipe.eval, recipe.eval.best_by, splits.classes)), "split": recipe.eval.select},
        parameters=parameters(networks.adversarial),
        standard_parameters=parameters(networks.standard) if networks.standard is not None else 0,
        **({"micro_batch": part} if part else {}),
    )  # fmt: skip
    if 0 < part < batch:
        message = (
            f"run.micro_batch = {part}: BatchNorm and L_TP see parts of a batch, so the numbers are not those of 0"
        )
        log.write("warning", message=message)
    if not setup.reproducible:
        message = (
            "GPU kernels are not deterministic: the same seed need not give the same bits (run.deterministic = true)"
        )
        log.write("warning", message=message)


def _evaluate(
    recipe: Recipe,
    splits: Splits,
    networks: Networks,
    setup: Machine,
    life: Lifecycle,
    log: EventLog,
    which: Sequence[str],
) -> None:
    """Evaluate the checkpoints `which` ("best", "last"), in that order."""
    log.write("stage", stage="evaluate")
    for name in dict.fromkeys(which):
        written = _restore(networks, recipe, life.rundir, name)
        evaluate_checkpoint(
            recipe=recipe, splits=splits, network=networks.adversarial, standard=networks.standard, checkpoint=written,
            rundir=life.rundir, device=setup.device, emit=log.write, should_stop=life.should_stop,
        )  # fmt: skip


def _restore(networks: Networks, recipe: Recipe, rundir: RunDir, name: str) -> dict[str, Any]:
    """Load checkpoint `name` for evaluation; returns its name, its epoch and the rule by which it is what it is."""
    path = rundir.checkpoint(name)
    tensors, state = checkpoint.load(path)
    checkpoint.check_state(state, path)
    networks.restore(tensors, path)
    networks.mode(training=False)
    epoch, rule = _written_at(state, recipe, path)
    return {"name": name, "epoch": epoch, "rule": rule}


def _written_at(state: dict[str, Any], recipe: Recipe, path: Path) -> tuple[int, str]:
    """The epoch of a checkpoint and the rule by which it is what it is; a stopped run's `last` says so."""
    progress = state["progress"]
    if progress["stage"] == "pretrain":
        raise CheckpointError(f"{path}: the run was stopped while it trained M, before M' learnt anything")
    if progress["batch"]:
        return progress["epoch"], f"stopped in epoch {progress['epoch']}"
    epoch = progress["epoch"] - 1
    early = path.stem == "last" and epoch < recipe.schedule.epochs
    return epoch, f"stopped after epoch {epoch}" if early else state["rule"]


def _peak_memory() -> float:
    """Largest memory of this process so far, in MB: of the GPU where one was used, else of the process."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
