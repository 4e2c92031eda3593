"""An attack's gradient recorded once and replayed. There is no GPU here, so a stand-in records: it runs the work again
and writes the outcome to where the first one was, as a graph does.
"""

import copy
import gc
import warnings
import weakref

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode

from engine.attacks import graphs
from engine.attacks.graphs import Slower
from engine.attacks.pgd import PGD, misclassified
from engine.models.build import build
from engine.models.fold import folded
from engine.recipe import Model


class Recorder:
    """Takes the place of graphs.record; `spoil` changes what a replay gives."""

    def __init__(self, spoil=lambda outputs: None):
        self.spoil, self.recorded, self.replayed = spoil, 0, 0

    def __call__(self, work):
        self.recorded += 1
        outputs = work()

        def replay():
            self.replayed += 1
            for static, one in zip(outputs, work(), strict=True):
                static.copy_(one)
            self.spoil(outputs)

        return replay, outputs


@pytest.fixture
def recorder(monkeypatch):
    """A stand-in that works, in a world where graphs are possible."""
    return use(monkeypatch, Recorder())


def use(monkeypatch, record):
    monkeypatch.setattr(graphs, "possible", lambda network, x: True)
    monkeypatch.setattr(graphs, "record", record)
    return record


def made(count=6):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = build(Model(arch="small-cnn", width=4), 3, 16, 5)
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                module.running_mean.normal_(std=0.2)
        x = torch.rand(count, 3, 16, 16)
    return network.eval(), x, torch.arange(count) % 5


def attacked(attack, network, x, y):
    return attack(network, x, y, torch.Generator().manual_seed(0))


def plain(attack, network, x, y):
    """The same from a network that nothing was recorded of, without graphs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "possible", lambda network, x: False)
        return attacked(attack, copy.deepcopy(network), x, y)


@pytest.mark.parametrize("loss", ["ce", "kl", "margin"])
def test_replays_give_the_same_images_also_when_the_weights_have_moved(recorder, loss):
    network, x, y = made()
    attack = PGD(0.05, 0.02, 4, loss=loss, fold=True)
    for round in range(3):
        with torch.no_grad():
            for weight in network.parameters():
                weight.mul_(1 + 0.1 * round)
        for one, other in zip(attacked(attack, network, x + 0.01 * round, (y + round) % 5),
                              plain(attack, network, x + 0.01 * round, (y + round) % 5), strict=True):  # fmt: skip
            assert torch.equal(one, other)
    assert (recorder.recorded, recorder.replayed) == (1, 1 + 3 + 4 + 4)


def test_each_loss_and_each_precision_has_its_own(recorder):
    network, x, y = made()
    for loss in ("ce", "margin", "ce"):
        attacked(PGD(0.05, 0.02, 2, loss=loss, fold=True), network, x, y)
    with torch.autocast("cpu", torch.bfloat16):
        attacked(PGD(0.05, 0.02, 2, fold=True), network, x, y)
    assert recorder.recorded == 3


def test_smaller_batches_are_computed_as_ever_and_a_larger_one_is_recorded_anew(recorder):
    network, x, y = made(8)
    attack = PGD(0.05, 0.02, 2, fold=True)
    for count, recorded in ((6, 1), (3, 1), (8, 2), (6, 2), (8, 2)):
        found = attacked(attack, network, x[:count], y[:count])
        assert torch.equal(found.images, plain(attack, network, x[:count], y[:count]).images)
        assert recorder.recorded == recorded


@pytest.mark.parametrize(
    "settings", [{"stop": misclassified}, {"micro_batch": 3}, {"fold": False}, {"batchnorm": "train"}]
)
def test_where_the_host_has_something_to_say_nothing_is_recorded(recorder, settings):
    network, x, y = made()
    attack = PGD(0.05, 0.02, 2, **{"fold": True, **settings})
    attacked(attack, network, x, y)
    assert recorder.recorded == 0


def test_on_a_cpu_nothing_is_recorded():
    network, x, _ = made()
    assert not graphs.possible(network, x)


def unable(work):
    raise RuntimeError("operation not permitted when stream is capturing\nand more")


def turned(outputs):
    outputs[1].mul_(-1)


def idle(work):
    """What a capture of kernels that went elsewhere gives."""
    return lambda: None, work()


@pytest.mark.parametrize(
    ("record", "said"),
    [(unable, "not permitted"), (Recorder(turned), "the gradient came out"), (idle, "logits came out")],
)
def test_what_cannot_be_recorded_or_comes_out_otherwise_is_computed_as_ever(monkeypatch, record, said):
    use(monkeypatch, record)
    network, x, y = made()
    attack = PGD(0.05, 0.02, 4, fold=True)
    expected = plain(attack, network, x, y)
    with pytest.warns(Slower, match=said):
        found = attacked(attack, network, x, y)
    assert torch.equal(found.images, expected.images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # told once
        assert torch.equal(attacked(attack, network, x, y).images, expected.images)


def test_deterministic_kernels_must_agree_to_the_bit(monkeypatch):
    use(monkeypatch, Recorder(lambda outputs: outputs[1].mul_(1 + 1e-6)))
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    with pytest.warns(Slower, match="gradient"):
        attacked(PGD(0.05, 0.02, 2, fold=True), *made())


def test_of_numbers_that_are_none_nothing_is_said(recorder):
    network, x, y = made()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nn.init.constant_(network.linear.bias, torch.nan)
        attacked(PGD(0.05, 0.02, 2, fold=True), network, x, y)
        nn.init.zeros_(network.linear.bias)
        attacked(PGD(0.05, 0.02, 2, fold=True), network, x, y)
    assert recorder.recorded == 3  # twice in vain


def test_of_numbers_that_stay_none_nothing_is_recorded_for_long(recorder):
    network, x, y = made()
    nn.init.constant_(network.linear.bias, torch.nan)
    attacked(PGD(0.05, 0.02, 9, fold=True), network, x, y)
    assert recorder.recorded == graphs.PATIENCE


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("loss", ["ce", "kl", "margin"])
def test_on_a_gpu_graphs_give_the_same_images(loss):
    for number in {0, torch.cuda.device_count() - 1}:
        device = torch.device("cuda", number)
        torch.cuda.set_device(device)
        network, x, y = (one.to(device) for one in made())
        attack = PGD(0.05, 0.02, 4, loss=loss, fold=True)
        for round in range(3):
            draws = [torch.Generator(device).manual_seed(round) for _ in range(2)]
            found = attack(network, x, y.roll(round), draws[0]).images
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(graphs, "possible", lambda network, x: False)
                expected = attack(copy.deepcopy(network), x, y.roll(round), draws[1]).images
            assert ((found - expected).abs() > 1e-6).double().mean() < 0.01


def test_what_was_recorded_ends_with_the_twin():
    network, *_ = made()
    recorded = weakref.ref(graphs.recorded(folded(network), "ce"))
    assert graphs.recorded(folded(network), "ce") is recorded()
    del network
    gc.collect()
    assert recorded() is None


class NoWaiting(TorchDispatchMode):
    """Forbids what a host waits for a device for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten._local_scalar_dense.default, "the host waits for a number"
        assert func is not torch.ops.aten.nonzero.default, "the host waits for a shape"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("loss", ["ce", "kl", "margin"])
@pytest.mark.parametrize("settings", [{}, {"fold": False}, {"micro_batch": 3}, {"start": "uniform"}, {"noise": 0.1}])
def test_the_host_never_waits_for_the_device(loss, settings):
    network, x, y = made()
    attack = PGD(0.05, 0.02, 3, **{"loss": loss, "fold": True, **settings})
    with NoWaiting():
        attacked(attack, network, x, y)
    with NoWaiting(), pytest.raises(AssertionError, match="waits"):
        attacked(PGD(0.05, 0.02, 3, stop=misclassified), network, x, y)
