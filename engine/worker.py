"""One process for one run: load the data, build the networks, train, evaluate, and say how it ended."""

from __future__ import annotations

import hashlib
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch

from engine import checkpoint, machine, narrate, options
from engine.checkpoint import CheckpointError
from engine.data.base import DataError, Splits
from engine.data.load import load as load_data
from engine.evaluate.run import Stopped, evaluate_checkpoint
from engine.events import EventLog
from engine.lifecycle import AlreadyRunning, Lifecycle
from engine.machine import Machine, MachineLacks
from engine.methods.base import Method
from engine.networks import Networks, build_networks, compile_networks
from engine.recipe import InvalidRecipe, Recipe, check, own_options
from engine.rundir import RunDir, replace
from engine.train import Diverged, Interrupted, Trainer, parameters

DONE, FAILED, USAGE, LACKS = 0, 1, 2, 3


def train(folder: Path) -> int:
    """Carry out the run in `folder`, from its last checkpoint if it has one. Returns the exit code."""
    rundir = RunDir(folder)
    try:
        with Lifecycle(rundir) as life:
            if rundir.json("exit.json").get("status") == "done":
                print(f"{folder}: this run is done")
                return DONE
            rundir.archive_exit()
            return _guarded(life, rundir)
    except AlreadyRunning as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE


def evaluate(folder: Path, attacks: Sequence[str], which: Sequence[str]) -> int:
    """Evaluate checkpoints of a run again, with `attacks` instead of the recipe's; the run's status stays as it is."""
    rundir = RunDir(folder)
    try:
        with Lifecycle(rundir, record=False) as life:
            recipe = _read_recipe(rundir)
            table = recipe.model_dump()
            table["eval"]["attacks"] = list(attacks)
            recipe = check(table)
            setup = machine.prepare(recipe.run)
            splits, networks = _load(recipe, setup)
            log = EventLog(rundir.events, narrate.say)
            _evaluate(recipe, splits, networks, setup, life, log, which)
            return DONE
    except (AlreadyRunning, CheckpointError, InvalidRecipe, MachineLacks, DataError) as error:
        print(f"error: {error}\n{getattr(error, 'hint', '')}".strip(), file=sys.stderr)
        return LACKS if isinstance(error, MachineLacks | DataError) else USAGE
    except Stopped:
        return 130


def _guarded(life: Lifecycle, rundir: RunDir) -> int:
    """Run, and turn whatever happens into exit.json."""
    try:
        _run(life, rundir)
    except (Interrupted, Stopped):
        number = int(life.stop_signal or 15)
        status = "preempted" if number == 10 else "killed"
        return life.end(
            status, 128 + number, f"stopped by {life.stop_signal and life.stop_signal.name}", "resume goes on"
        )
    except Diverged as error:
        hint = "lower optim.lr or attack.eps, or look at the last step events; checkpoints/last is from before"
        return life.end("diverged", FAILED, str(error), hint)
    except (torch.OutOfMemoryError, MemoryError) as error:
        return life.end("oom", FAILED, _first_line(error), OOM_HINT)
    except (MachineLacks, DataError) as error:
        return life.end("failed", LACKS, str(error), error.hint)
    except (CheckpointError, InvalidRecipe, ValueError) as error:
        traceback.print_exc()
        return life.end("failed", FAILED, str(error))
    except BaseException as error:
        traceback.print_exc()
        if isinstance(error, RuntimeError) and "can't allocate memory" in str(error):
            return life.end("oom", FAILED, _first_line(error), OOM_HINT)
        return life.end(
            "failed", FAILED, f"{type(error).__name__}: {_first_line(error)}", "the traceback is in stdout.log"
        )
    return life.end("done", DONE, peak_memory_mb=_peak_memory())


OOM_HINT = "lower optim.batch_size or eval.batch_size, or choose a smaller model.arch"


def _run(life: Lifecycle, rundir: RunDir) -> None:
    recipe = _read_recipe(rundir)
    setup = machine.prepare(recipe.run)
    rundir.write_json("env.json", machine.environment(recipe, setup))
    method = _method(recipe)
    splits, networks = _load(recipe, setup, method)
    rundir.checkpoints.mkdir(exist_ok=True)
    if not rundir.events.exists():
        rundir.events.touch()

    log = EventLog(rundir.events, narrate.say)
    recipe_hash = hashlib.sha256(rundir.recipe.read_bytes()).hexdigest()
    trainer = Trainer(recipe, method, splits, networks, setup, life, log, recipe_hash)
    position = trainer.resume()
    life.began(trainer.progress.step if position is not None else None)
    # Events behind the checkpoint tell of steps that are about to be taken again.
    if rundir.events.stat().st_size > (position or 0):
        log.close()
        replace(rundir.events, rundir.events.read_bytes()[: position or 0])
        trainer.log = log = EventLog(rundir.events, narrate.say)
    wanted = recipe.run.compile == "on"
    trouble = compile_networks(networks, tuple(splits.train.images.shape[1:]), setup.device) if wanted else ""
    if position is None:
        _say_start(log, recipe, setup, splits, networks, compiled=wanted and not trouble)
        if trouble:
            log.write("warning", message=f"run.compile = on, but torch.compile failed, so without it: {trouble}")
    trainer.run()
    _evaluate(recipe, splits, networks, setup, life, log, recipe.eval.checkpoints)


def _read_recipe(rundir: RunDir) -> Recipe:
    import tomli

    try:
        return check(tomli.loads(rundir.recipe.read_text(encoding="utf-8")))
    except (OSError, tomli.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{rundir.recipe}: cannot be read ({error})") from None


def _method(recipe: Recipe) -> Method:
    """The chosen method with its options."""
    found = options.load_class(options.catalog("Method")[recipe.method.name])
    method = found(**own_options(recipe, "method"))
    assert isinstance(method, Method)
    return method


def _load(recipe: Recipe, setup: Machine, method: Method | None = None) -> tuple[Splits, Networks]:
    splits = load_data(recipe)
    networks = build_networks(recipe, method or _method(recipe), splits, setup.device)
    if networks.frozen and networks.standard is not None and recipe.standard.weights:
        path = Path(recipe.standard.weights).expanduser()
        tensors, _ = checkpoint.load(path)
        checkpoint.restore(networks.standard, checkpoint.pick(tensors, "model."), path)
    return splits, networks


def _say_start(
    log: EventLog, recipe: Recipe, setup: Machine, splits: Splits, networks: Networks, *, compiled: bool
) -> None:
    batch = recipe.optim.batch_size
    log.write(
        "start", method=recipe.method.name, topology=recipe.topology.enabled, dataset=recipe.data.dataset,
        device=str(setup.device), threads=setup.threads, compiled=compiled,
        precision="bfloat16" if setup.bfloat16 else "float32", epochs=recipe.schedule.epochs,
        steps_per_epoch=-(-len(splits.train) // batch), train=len(splits.train), test=len(splits.test),
        parameters=parameters(networks.adversarial),
        standard_parameters=parameters(networks.standard) if networks.standard is not None else 0,
    )  # fmt: skip
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
        path = life.rundir.checkpoint(name)
        tensors, state = checkpoint.load(path)
        networks.restore(tensors, path)
        networks.mode(training=False)
        epoch = state["progress"]["epoch"] - 1
        evaluate_checkpoint(
            recipe=recipe, splits=splits, network=networks.adversarial, standard=networks.standard,
            checkpoint={"name": name, "epoch": epoch, "rule": state["rule"]},
            rundir=life.rundir, device=setup.device, emit=log.write, should_stop=life.should_stop,
        )  # fmt: skip


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:500]


def _peak_memory() -> float:
    """Largest memory of this process so far, in MB: of the GPU where one was used, else of the process."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
