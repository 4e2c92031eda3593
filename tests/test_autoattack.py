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
from engine.attacks.sparing import FEWEST, SAFETY, Margins, Sure, sure, targets_together
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


def square(predict, x, y, margins=None):
    attack = AutoAttack(nn.Identity(), eps=0.1, seed=0, version="standard").square  # its settings are not the defaults
    attack.predict, attack.n_queries = predict, 300
    if margins is not None:
        attack.margin_and_loss = margins
    with torch.random.fork_rng():
        return attack.perturb(x, y)


@pytest.mark.parametrize("points", [40, FEWEST + 1, 2])
def test_square_makes_the_same_images_from_fewer_forwards(convolutional, points):
    network, x, y = convolutional
    x, y = x[:points], y[:points]
    package, ours, rough = Counted(network), Counted(network), []
    expected = square(package, x, y)
    with sure(network, ours, x) as answers:
        assert not answers.same and answers.tolerance < 0.1
        found_by = answers.rough
        answers.rough = lambda images: rough.append(len(images)) or found_by(images)
        assert torch.equal(square(ours, x, y, Margins(answers)), expected)
    if points >= FEWEST:
        assert ours.images < 0.6 * package.images
    if points == 40:
        assert rough


def test_square_loses_nothing_where_rounding_is_coarse(convolutional):
    network, x, y = convolutional
    expected = square(Counted(network), x, y)
    # Half precision, and a network that has nothing to fold.
    for rough in (lambda images: network(images).logits.bfloat16().float(), Counted(network)):
        answers = Sure(Counted(network), rough, x)
        assert torch.equal(square(Counted(network), x, y, Margins(answers)), expected)


@pytest.mark.parametrize(("points", "batch_size"), [(40, 256), (40, 100), (40, 40), (3, 256)])
def test_targets_are_tried_together_to_the_same_end(convolutional, points, batch_size):
    network, x, y = convolutional
    x, y = x[:points], y[:points]
    found, calls = [], []
    for together in (False, True):
        asked = Counted(network)
        fab = AutoAttack(nn.Identity(), eps=0.08, seed=0, version="standard").fab
        fab.predict, fab.n_iter, fab.targeted = asked, 8, True
        with torch.random.fork_rng(), sure(network, asked, x) as answers:
            found.append(
                targets_together(fab, answers, x, y, 0.08, batch_size) if together else fab.perturb(x.clone(), y)
            )
        calls.append(len(asked.sizes))
    assert torch.equal(found[0], found[1])
    fell = (found[0] != x).flatten(1).any(1)
    assert 0 < fell.sum() < points  # or there would be nothing to get wrong
    assert calls[1] < calls[0]


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
