import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pyautoattack import AutoAttack
from tiny import TinyNet, tiny_splits, trained
from torch import nn

from engine.attacks.autoattack import StateFile, autoattack, form
from engine.attacks.sparing import FEWEST, SAFETY, Sure, sure
from engine.attacks.square import Square
from engine.attacks.standing import climb, targets_together
from engine.models.build import SmallCNN
from engine.models.output import Output

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def child():
    """Results of the functions of autoattack_child.py, which runs in a process of its own."""
    paths = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, HERE / "autoattack_child.py"],
        env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_interrupted_runs_give_the_outcomes_of_the_standard_version_in_one_call(child):
    found = child["same"]
    assert found["stops"] >= 2
    assert found["parts"]["correct"] == found["package"]
    assert 0 < sum(found["package"]) < 12  # some points fall and some stand, or this would say little
    assert found["repeated"] == found["parts"]
    assert found["started_afresh"] == [True, True]  # with another identity, and with a damaged file
    survivors = found["parts"]["survivors"]
    assert list(survivors) == ["clean", "apgd-ce", "apgd-t", "fab-t", "square"]
    assert list(survivors.values()) == sorted(survivors.values(), reverse=True)
    assert survivors["square"] == sum(found["package"])
    said = {key: found["parts"][key] for key in ("standard", "version", "implementation", "seed", "batch_size")}
    assert said == {
        "standard": True, "version": "standard", "implementation": "pyautoattack 0.2.0", "seed": 0, "batch_size": 8,
    }  # fmt: skip


def test_fewer_than_ten_classes_run(child):
    found = child["few"]
    assert list(found["2"]) == ["clean", "apgd-ce", "fab"]
    assert list(found["3"]) == ["clean", "apgd-ce", "apgd-dlr", "fab"]
    assert list(found["5"]) == ["clean", "apgd-ce", "apgd-t", "fab-t", "square"]
    assert all(survivors["apgd-ce"] > 0 for survivors in found.values())  # so the later attacks had points


@pytest.mark.parametrize(
    ("classes", "targets", "last"), [(2, 1, "fab"), (3, 2, "fab"), (4, 3, "fab-t"), (9, 8, "fab-t")]
)
def test_the_form_for_few_classes_says_that_it_is_not_the_standard(classes, targets, last):
    found = form(classes)
    assert not found.standard and found.version.startswith("not standard: apgd-ce, ")
    assert found.version.endswith(f"with {classes} classes")
    assert (found.targets, found.attacks[-2:]) == (targets, (last, "square"))


def test_doubts_are_kept_and_side_effects_are_not(child):
    found = child["masked"]
    zero_gradient, square = found["result"]["warnings"]
    assert "zero gradient" in zero_gradient and "flags_doc" not in zero_gradient
    assert square.startswith("Square broke")
    assert found["left"] == {
        "trace": True, "rng": True, "gradients": [], "frozen": ["head.bias"], "training": False, "messages": 0,
        "logger": [0, True, 0],
    }  # fmt: skip


def test_a_checkpoints_evaluation_goes_on_and_tells_all(child):
    found = child["checkpoint"]
    assert [event["event"] for event in found["events"]] == ["eval", "stopped", "eval", "eval"]
    assert "best-aa.state" in found["events"][1]["files"]
    assert found["files"] == ["best-aa.csv", "best-aa.json", "best-natural.csv", "best-natural.json"]
    assert found["events"][0] == found["events"][2]
    aa = found["events"][3]
    expected = {
        "metric": "aa", "n": 4, "of": 50, "checkpoint": "best", "attack": "autoattack", "norm": "linf", "eps": 0.3,
        "implementation": "pyautoattack 0.2.0", "version": "standard", "standard": True, "seed": 0,
    }  # fmt: skip
    assert {key: aa[key] for key in expected} == expected
    assert aa["value"] == 100 * aa["survivors"]["square"] / 4
    assert isinstance(aa["warnings"], list) and aa["seconds"] > 0


@pytest.mark.parametrize("classes", [10, 100])
def test_ten_classes_or_more_are_the_standard(classes):
    assert form(classes).standard and form(classes).targets == 9


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="2 classes or more"):
        form(1)


def attempt(network=None, images=None, labels=None):
    images = torch.rand(3, 1, 6, 6) if images is None else images
    labels = torch.zeros(3, dtype=torch.int64) if labels is None else labels
    network = TinyNet().eval() if network is None else network
    return autoattack(network, images, labels, eps=0.1, seed=0, batch_size=8, device=torch.device("cpu"))


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.rand(3, 1, 6, 6).double(), None, "float32"),
        (torch.zeros(3, 1, 6, 6, dtype=torch.uint8), None, "float32"),
        (torch.rand(3, 36), None, r"\[n, C, H, W\]"),
        (2 * torch.ones(3, 1, 6, 6), None, r"in \[0, 1\], these are in \[2, 2\]; normalise them inside"),
        (-0.1 * torch.ones(3, 1, 6, 6), None, r"these are in \[-0.1"),
        (torch.full((3, 1, 6, 6), torch.nan), None, r"in \[0, 1\]"),
        (None, torch.zeros(3, dtype=torch.int32), "int64"),
        (None, torch.zeros(2, dtype=torch.int64), "one int64 label an image"),
        (torch.rand(0, 1, 6, 6), torch.zeros(0, dtype=torch.int64), "at least one image"),
    ],
)
def test_inputs_that_would_give_a_wrong_number_are_refused(images, labels, message):
    with pytest.raises(ValueError, match=message):
        attempt(images=images, labels=labels)


def test_a_network_in_train_mode_is_refused():
    network = TinyNet().eval()
    network.body[4].train()  # dropout left on
    with pytest.raises(ValueError, match="train mode"):
        attempt(network)


class Changed(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.network, self.change = TinyNet(), change
        self.eval()

    def forward(self, x):
        output = self.network(x)
        return Output(output.features, self.change(output.logits))


def test_probabilities_and_other_precisions_are_refused():
    with pytest.raises(ValueError, match="returns probabilities"):
        attempt(Changed(lambda logits: logits.softmax(1)))
    with pytest.raises(ValueError, match="logits in float32, not torch"):
        attempt(Changed(lambda logits: logits.bfloat16()))


def test_points_that_are_misclassified_are_not_attacked(tmp_path):
    network = Changed(lambda logits: logits * 0 + torch.arange(10.0))  # always says 9
    state = StateFile(tmp_path / "aa.state", "x")
    result = autoattack(
        network, torch.rand(3, 1, 6, 6), torch.zeros(3, dtype=torch.int64), eps=0.1, seed=0, batch_size=2,
        device=torch.device("cpu"), state=state,
    )  # fmt: skip
    assert result.predictions.tolist() == [9, 9, 9]
    assert set(result.survivors.values()) == {0}


# --- the forwards that are spared ---------------------------------------------------------------------------


class Counted:
    """Logits of a network, and how many images it was asked about."""

    def __init__(self, network):
        self.network, self.images, self.sizes = network, 0, []

    def __call__(self, x):
        self.images += len(x)
        self.sizes.append(len(x))
        return self.network(x).logits


@pytest.fixture(scope="module")
def convolutional():
    """A network with BatchNorm to fold, and the test images that it classifies correctly."""
    splits = tiny_splits()
    network = trained(splits, make=lambda classes: SmallCNN(1, 8, classes, 4)).eval().requires_grad_(False)
    x, y = splits.test.images.float() / 255, splits.test.labels
    correct = network(x).logits.argmax(1) == y
    assert correct.sum() > 30
    return network, x[correct], y[correct]


def square(predict, x, y, answers=None, batch_size=256, eps=0.1):
    attack = AutoAttack(nn.Identity(), eps=eps, seed=0, version="standard").square  # its settings are not the defaults
    attack.predict, attack.n_queries = predict, 300
    if answers is not None:
        attack.attack_single_run = Square(attack, answers, batch_size)
    with torch.random.fork_rng():
        return attack.perturb(x, y)


@pytest.mark.parametrize("eps", [0.06, 0.1])
@pytest.mark.parametrize("points", [40, FEWEST + 1, 2])
def test_square_makes_the_same_images_from_fewer_forwards(convolutional, points, eps):
    network, x, y = convolutional
    x, y = x[:points], y[:points]
    package, ours, rough = Counted(network), Counted(network), []
    expected = square(package, x, y, eps=eps)
    answers = sure(network, ours, x)
    assert not answers.same and answers.tolerance < 0.1
    found_by = answers.rough
    answers.rough = lambda images: rough.append(len(images)) or found_by(images)
    assert torch.equal(square(ours, x, y, answers, eps=eps), expected)
    assert ours.images < 0.6 * package.images
    assert len(ours.sizes) + len(rough) < 0.8 * len(package.sizes)
    assert rough


@pytest.mark.parametrize("batch_size", [40, 256])
def test_square_loses_nothing_where_rounding_is_coarse(convolutional, batch_size):
    network, x, y = convolutional
    expected = square(Counted(network), x, y)
    # Half precision, and a network that has nothing to fold.
    for rough in (lambda images: network(images).logits.bfloat16().float(), Counted(network)):
        answers = Sure(Counted(network), rough, x)
        assert torch.equal(square(Counted(network), x, y, answers, batch_size), expected)


def test_square_tells_equal_images_of_different_points_apart(convolutional):
    network, x, y = convolutional
    x, y = x[:1].repeat(FEWEST + 4, 1, 1, 1), y[:1].repeat(FEWEST + 4)
    answers = sure(network, Counted(network), x)
    assert torch.equal(square(Counted(network), x, y, answers), square(Counted(network), x, y))


def fell(network, found, x, y, eps):
    """Which images fool, if only those of the ball around x were changed."""
    assert float((found - x).detach().abs().max()) <= eps + 1e-6
    fooling = network(found).logits.argmax(1) != y
    assert torch.equal(fooling, (found != x).flatten(1).any(1))
    return fooling


@pytest.mark.parametrize(("points", "batch_size"), [(40, 256), (40, 100), (3, 256)])
@pytest.mark.parametrize("attack", ["apgd-ce", "apgd-t", "fab-t"])
def test_the_same_points_fall_by_fewer_forwards(convolutional, attack, points, batch_size):
    network, x, y = convolutional
    x, y = x[:points], y[:points]
    asked, total = (Counted(network), Counted(network)), 0
    for eps in (0.03, 0.08):
        fallen = []
        for ours, predict in enumerate(asked):
            package = AutoAttack(predict, eps=eps, seed=0, version="standard")
            package.fab.targeted = True
            one = {"apgd-ce": package.apgd, "apgd-t": package.apgd_targeted, "fab-t": package.fab}[attack]
            one.n_iter = 6
            with torch.random.fork_rng():
                if not ours:
                    found = one.perturb(x.clone(), y)
                elif attack == "fab-t":
                    found = targets_together(one, sure(network, predict, x), x, y, eps, batch_size)
                else:
                    found = climb(one, predict, x, y, batch_size)
            fallen.append(fell(network, found, x, y, eps))
        assert torch.equal(*fallen)
        total += int(fallen[0].sum())
    if points >= FEWEST:
        assert 0 < total < 2 * points  # or there would be nothing to get wrong
        assert asked[1].images < asked[0].images
    if (points, batch_size) == (40, 256) and attack != "apgd-ce":
        assert len(asked[1].sizes) < 0.6 * len(asked[0].sizes)


class Watched(Counted):
    """Remembers the images, too."""

    def __init__(self, network):
        super().__init__(network)
        self.seen = []

    def __call__(self, x):
        self.seen.append({image.numpy().tobytes() for image in x.detach()})
        return super().__call__(x)


def test_each_target_starts_where_the_package_does(convolutional):
    """Falls in the middle of targets that are tried together move the starts of those after it."""
    network, x, y = convolutional
    watched, turns = (Watched(network), Watched(network)), []
    for ours, predict in enumerate(watched):
        apgd = AutoAttack(predict, eps=0.05, seed=0, version="standard").apgd_targeted
        apgd.n_iter, run = 8, apgd.attack_single_run

        def single(x, y, ours=ours, run=run):
            turns.extend([len(x)] * ours)
            return run(x, y)

        apgd.attack_single_run = single
        with torch.random.fork_rng():
            climb(apgd, predict, x, y, 256) if ours else apgd.perturb(x.clone(), y)
    assert max(turns) > len(x)  # some targets went together
    assert turns[-1] < max(turns) and len(set(turns)) > 2
    # In the last turn nobody fell, so nothing that was asked is void.
    assert watched[1].seen[-1] <= set().union(*watched[0].seen)


def test_the_network_is_asked_for_labels_that_rounding_could_change(convolutional):
    network, x, _ = convolutional
    exact = Counted(network)

    def gaps(logits):
        best = logits.topk(2, dim=1).values
        return best[:, 0] - best[:, 1]

    # Rounding so large that half of the labels lie within what is reckoned with.
    error = float(gaps(exact(x)).median()) / 2 / SAFETY
    answers = Sure(exact, lambda images: network(images).logits + error * torch.eye(10)[3], x)
    unsure = int((gaps(answers.rough(x)) <= answers.tolerance).sum())
    assert FEWEST < unsure < len(x)
    exact.sizes.clear()
    assert torch.equal(answers.labels(x), network(x).logits.argmax(1))
    assert exact.sizes == [unsure]
