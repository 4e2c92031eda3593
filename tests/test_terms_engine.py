"""[terms.NAME] of a recipe: what is refused, and runs of the real engine with several terms at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from conftest import carry_out
from safetensors.torch import load_file

from engine import events, recipe
from engine.rundir import RunDir

Make = Callable[..., RunDir]
ALL: dict[str, Any] = {
    "terms__rkd": {"form": "original"}, "terms__crd": {"negatives": 40, "dim": 8}, "terms__mca": {"negatives": 100},
    "topology__enabled": True, "topology__rho": "set", "method__name": "awp",
}  # fmt: skip
QUICK: dict[str, Any] = {
    "eval__attacks": [], "eval__topology": False, "eval__checkpoints": ["last"], "eval__best_by": "natural",
    "run__log_every": 1,
}  # fmt: skip


def log(rundir: RunDir) -> list[dict[str, Any]]:
    return [event for _, event in events.read(rundir.events.read_bytes())]


def timeless(rundir: RunDir) -> list[dict[str, Any]]:
    return [{key: value for key, value in event.items() if key not in events.TIMES} for event in log(rundir)]


def tensors(rundir: RunDir) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(rundir.checkpoint("last")).items()}


def test_a_run_with_every_term_resumes_bit_identically(make_folder: Make) -> None:
    whole, broken = (make_folder(name, **ALL, **QUICK, schedule__epochs=4) for name in ("whole", "broken"))
    carry_out(whole)
    carry_out(broken, until=6)
    carry_out(broken)
    assert timeless(broken) == timeless(whole)
    assert tensors(broken) == tensors(whole)
    kept = ("crd.student.bank", "crd.teacher.total", "mca.position", "topology.standard.rows")
    assert {f"terms.{name}" for name in kept} <= set(tensors(whole))
    assert "optimizer.terms.crd.student.linear.weight" in tensors(whole)

    epoch = next(event for event in log(whole) if event["event"] == "epoch")
    added = [epoch[f"loss_{name}"] for name in ("topology", "rkd", "crd", "mca")]
    assert all(value > 0 for value in added)
    assert epoch["loss"] == pytest.approx(epoch["loss_robust"] + sum(added))


def test_terms_of_weight_0_leave_the_run_as_it_is(make_folder: Make) -> None:
    """Their own draws, forwards and second network shift nothing, and FAT may reorder the batch under them."""
    settings = {**QUICK, "method__name": "fat", "method__base": "trades", "schedule__epochs": 1}
    terms = {f"terms__{name}": {"weight": 0.0} for name in ("rkd", "crd", "mca")}
    plain, other = make_folder("plain", **settings), make_folder("other", **terms, **settings)
    carry_out(plain)
    carry_out(other)
    assert {key: value for key, value in tensors(other).items() if key.startswith("model.")} == {
        key: value for key, value in tensors(plain).items() if key.startswith("model.")
    }
    epoch = next(event for event in log(other) if event["event"] == "epoch")
    assert (epoch["loss_rkd"], epoch["loss_crd"], epoch["loss_mca"]) == (0, 0, 0)
    assert epoch["loss_standard"] > 0


def problems(**terms: Any) -> dict[str, str]:
    """What the recipe refuses in [terms], by key."""
    with pytest.raises(recipe.InvalidRecipe) as caught:
        recipe.check({"terms": terms})
    return {problem.key: f"{problem.message} ({problem.hint})" for problem in caught.value.problems}


def test_what_no_term_understands_is_refused_by_name() -> None:
    assert problems(rdk={}) == {"terms.rdk": "unknown key (did you mean 'rkd'?)"}
    assert problems(rkd={"wieght": 1.0})["terms.rkd.wieght"].startswith("unknown key")
    assert "expected a table, written [terms.rkd]" in problems(rkd=25.0)["terms.rkd"]
    bad = problems(
        rkd={"form": "cosin", "source": "both", "weight": -1.0, "angle": -1.0, "distance": "x"},
        crd={"negatives": 0, "dim": 0, "momentum": 1.0, "temperature": 0.0, "weight": -0.1},
        mca={"negatives": 1.5, "temperature": -1.0, "weight": True},
    )
    assert set(bad) == {
        *(f"terms.rkd.{key}" for key in ("form", "source", "weight", "angle", "distance")),
        *(f"terms.crd.{key}" for key in ("negatives", "dim", "momentum", "temperature", "weight")),
        *(f"terms.mca.{key}" for key in ("negatives", "temperature", "weight")),
    }
    assert "did you mean 'cosine'?" in bad["terms.rkd.form"]


def test_defaults_are_those_of_the_literature() -> None:
    terms = recipe.check({"terms": {"mca": {}, "crd": {}, "rkd": {}}}).terms.model_dump()
    assert terms == {
        "rkd": {"weight": 25.0, "form": "cosine", "distance": 1.0, "angle": 2.0, "source": "adversarial"},
        "crd": {"weight": 0.8, "negatives": 16384, "dim": 128, "temperature": 0.07, "momentum": 0.5},
        "mca": {"weight": 1.0, "temperature": 0.1, "negatives": 4096},
    }
    assert recipe.check({}).terms.model_dump() == {}


def test_a_term_needs_an_adversarial_method() -> None:
    with pytest.raises(recipe.InvalidRecipe, match="makes no adversarial images"):
        recipe.check({"method": {"name": "standard"}, "terms": {"mca": {}}})
