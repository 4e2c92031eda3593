"""When networks are compiled, and what is said where something fast does not work. Compiled runs: test_engine.py."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import pytest
import torch
from conftest import carry_out
from test_engine import Make, read_events
from torch import nn

from engine import machine, worker
from engine.attacks import graphs
from engine.attacks.graphs import Slower
from engine.models.fold import folded
from engine.networks import Networks, _Listener
from engine.recipe import Run

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
LONG = machine.COMPILATION_PAYS


@pytest.mark.parametrize(
    ("run", "device", "steps", "expected"),
    [
        ({}, CPU, LONG, False),
        ({}, GPU, LONG, True),
        ({}, GPU, LONG - 1, False),
        ({"deterministic": True}, GPU, LONG, False),
        ({"compile": "on"}, CPU, 1, True),
        ({"compile": "on", "deterministic": True}, GPU, 1, True),
        ({"compile": "off"}, GPU, LONG, False),
    ],
)
def test_auto_is_a_rule(
    monkeypatch: pytest.MonkeyPatch, run: dict[str, Any], device: torch.device, steps: int, expected: bool
) -> None:
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: name == "triton")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert machine.compiles(Run(**run), device, steps) is expected


@pytest.mark.parametrize(("found", "capability"), [(None, (8, 0)), (True, (6, 1))])
def test_auto_asks_for_a_gpu_that_triton_knows(
    monkeypatch: pytest.MonkeyPatch, found: object, capability: tuple[int, int]
) -> None:
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: found)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert not machine.compiles(Run(), GPU, LONG)


class Calls(nn.Module):
    """Counts how often it was really called."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.seen = nn.Parameter(torch.ones(1)), list[int]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(x))
        return x * self.weight


def test_eagerly_nothing_is_compiled_and_afterwards_it_is_again() -> None:
    network, x = Calls(), torch.ones(2)
    networks = Networks(network, None)
    network._compiled_call_impl = lambda x: x * 7  # type: ignore[assignment]
    assert network(x)[0] == 7
    with pytest.raises(KeyError), networks.eager():
        assert network(x)[0] == 1
        assert folded(network)(x)[0] == 1
        raise KeyError
    assert network(x)[0] == 7
    assert folded(network)._compiled_call_impl is not None  # and no part of the network, which that would call
    assert folded(network) is not network


def test_what_the_compiler_gives_up_later_is_told() -> None:
    def backend(graph: object, inputs: object) -> Any:
        raise NotImplementedError("no kernel for this\nand so on")

    logger, listener = logging.getLogger("torch._dynamo.convert_frame"), _Listener(logging.WARNING)
    network = nn.Linear(2, 2)
    network.compile(backend=backend)
    logger.addHandler(listener)
    try:
        with torch._dynamo.config.patch(suppress_errors=True), pytest.warns(Slower, match="no kernel for this"):
            found = network(torch.ones(2))
    finally:
        logger.removeHandler(listener)
        torch._dynamo.reset()
    network._compiled_call_impl = None
    assert torch.equal(found, network(torch.ones(2)))


def test_a_warning_is_told_once_and_strangers_warnings_are_let_through() -> None:
    told: list[str] = []
    with pytest.warns(UserWarning, match="elsewhere"), worker._told(told.append):
        for _ in range(2):
            warnings.warn("slow", Slower, stacklevel=1)
        warnings.warn("something elsewhere", UserWarning, stacklevel=1)
    assert told == ["slow"]


@pytest.fixture
def no_graphs(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A GPU that records nothing; settings of a short run."""

    def unable(work: object) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(graphs, "possible", lambda network, x: True)
    monkeypatch.setattr(graphs, "record", unable)
    return {"schedule__epochs": 2, "eval__attacks": [], "eval__topology": False, "eval__best_by": "natural"}


def test_a_run_says_so_as_an_event_and_a_resumed_one_only_in_its_log(
    make_folder: Make, no_graphs: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    run = make_folder(**no_graphs)
    steps = 3
    carry_out(run, until=steps)
    said = [event["message"] for event in read_events(run) if event["event"] == "warning"]
    assert len(said) == 1
    assert "without a CUDA graph: RuntimeError: operation not permitted" in said[0]
    capfd.readouterr()
    carry_out(run)
    assert [event["message"] for event in read_events(run) if event["event"] == "warning"] == said
    assert f"warning: {said[0]}" in capfd.readouterr().out


def test_a_resumed_run_tells_what_the_one_before_did_not_come_to(make_folder: Make, no_graphs: dict[str, Any]) -> None:
    star = {"topology__enabled": True, "topology__variant": "star"}
    kinds = []
    for name, until in (("whole", None), ("resumed", 3)):  # in the training of M alone
        run = make_folder(name, **no_graphs, **star)
        if until:
            carry_out(run, until=until)
        carry_out(run)
        kinds.append([event["event"] for event in read_events(run) if event["event"] in ("warning", "stage")])
    assert kinds == [["stage", "stage", "warning", "stage"]] * 2
