import csv
import json

import pytest
import torch
from tiny import tiny_splits, trained

from engine import events
from engine.attacks.pgd import PGD, misclassified
from engine.data.load import subset
from engine.evaluate import report
from engine.evaluate.accuracy import Outcomes, accuracy, evaluating
from engine.evaluate.protocols import attack, threat
from engine.evaluate.run import Stopped, evaluate_checkpoint
from engine.evaluate.selection import select_accuracies
from engine.evaluate.topology_score import knn_predict
from engine.models.build import SmallCNN
from engine.randomness import generator
from engine.recipe import check
from engine.regularizers.topology import topology_loss
from engine.rundir import RunDir

CPU = torch.device("cpu")
LAST = {"name": "last", "epoch": 3, "rule": "last epoch"}


def recipe(**settings):
    return check({"eval": {"attacks": ["pgd20", "cw20"], "eps": 0.1, "batch_size": 16, "topology_k": 5} | settings})


@pytest.fixture(scope="module")
def splits():
    return tiny_splits()


@pytest.fixture(scope="module")
def network(splits):
    return trained(splits)


@pytest.fixture(scope="module")
def standard(splits):
    return trained(splits, seed=1)


@pytest.fixture
def rundir(tmp_path):
    return RunDir(tmp_path / "run")


def run(recipe, splits, network, rundir, standard=None, checkpoint=LAST, should_stop=lambda: False):
    """Evaluate and return the events, as a reader of events.jsonl gets them."""
    lines = []
    evaluate_checkpoint(
        recipe=recipe, splits=splits, network=network, standard=standard, checkpoint=checkpoint, rundir=rundir,
        device=CPU, should_stop=should_stop,
        emit=lambda event, **fields: lines.append(events.encode(event, 0.0, fields)),
    )  # fmt: skip
    return [event for _, event in events.read(b"".join(lines))]


def values(found):
    return {event["metric"]: event["value"] for event in found if event["event"] == "eval"}


# --- protocols ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "metric", "expected"),
    [
        ("lbgat", "pgd20", ("ce", 0.031, 0.003, 20, "uniform", "none")),
        ("lbgat", "cw20", ("margin", 0.031, 0.003, 20, "uniform", "none")),
        ("lbgat", "pgd10", ("ce", 0.031, 0.031 / 4, 10, "uniform", "none")),
        ("las", "pgd20", ("ce", 8 / 255, 2 / 255, 20, "uniform-clipped", "misclassified")),
        ("las", "cw20", ("margin", 8 / 255, 2 / 255, 20, "uniform-clipped", "misclassified")),
        ("las", "pgd10", ("ce", 8 / 255, 2 / 255, 10, "uniform-clipped", "misclassified")),
    ],
)
def test_protocols(protocol, metric, expected):
    found = threat(check({"eval": {"protocol": protocol}}).eval, metric, 10)
    assert (found.loss, found.eps, found.step_size, found.steps, found.start, found.stop) == expected
    assert (found.norm, found.protocol, found.attack) == ("linf", protocol, "pgd")


def test_a_recipe_replaces_eps_and_step_size():
    both = threat(check({"eval": {"eps": 0.2, "step_size": 0.05}}).eval, "pgd20", 10)
    assert (both.eps, both.step_size) == (0.2, 0.05)
    assert threat(check({"eval": {"step_size": 0.05}}).eval, "pgd10", 10).step_size == 0.05
    # A bigger ball with the protocol's small step would hardly be searched.
    alone = threat(check({"eval": {"eps": 0.31}}).eval, "pgd20", 10)
    assert alone.step_size == pytest.approx(0.03)


def test_autoattack_and_natural_are_threat_models_too():
    section = check({"eval": {"protocol": "las"}}).eval
    aa = threat(section, "aa", 100)
    assert (aa.attack, aa.implementation, aa.version, aa.eps) == (
        "autoattack",
        "pyautoattack 0.2.0",
        "standard",
        8 / 255,
    )
    assert threat(section, "aa", 5).version.startswith("not standard")
    natural = threat(section, "natural", 10)
    assert (natural.attack, natural.norm, natural.eps) == ("none", None, None)
    assert attack(natural) is None
    with pytest.raises(ValueError, match="no setting"):
        attack(aa)
    with pytest.raises(ValueError, match="l_tp"):
        threat(section, "l_tp", 10)


def test_only_las_stops_at_misclassified_samples_and_clips_its_start():
    las, lbgat = (attack(threat(check({"eval": {"protocol": p}}).eval, "pgd20", 10)) for p in ("las", "lbgat"))
    assert las.clip_start and las.stop is not None
    assert not lbgat.clip_start and lbgat.stop is None
    assert las.batchnorm == lbgat.batchnorm == "eval"


# --- accuracy -----------------------------------------------------------------------------------------------

WEAK = PGD(eps=0.1, step_size=0.03, steps=5, loss="ce", start="uniform")


def measure(network, splits, attack=None, seed=0, metric="pgd20", indices=None, **options):
    indices = torch.arange(50) if indices is None else indices
    return accuracy(network, splits.test, indices, 16, CPU, attack, seed, metric, **options)


def test_natural_accuracy_is_that_of_one_forward_each(network, splits):
    found = measure(network, splits)
    with evaluating(network), torch.no_grad():
        alone = [int(network(image[None].float() / 255).logits.argmax()) for image in splits.test.images]
    assert found.predictions.tolist() == alone
    assert found.labels.tolist() == splits.test.labels.tolist()
    assert found.percent == 100 * sum(p == y for p, y in zip(alone, splits.test.labels.tolist(), strict=True)) / 50
    assert found.images is None


def test_attacked_images_stay_in_the_ball_and_fool(network, splits):
    found = measure(network, splits, WEAK, keep_images=True)
    natural = splits.test.images.float() / 255
    assert found.images.shape == natural.shape
    assert float((found.images - natural).abs().max()) <= 0.1 + 1e-6
    assert float(found.images.min()) >= 0 and float(found.images.max()) <= 1
    assert found.percent < measure(network, splits).percent
    with evaluating(network), torch.no_grad():
        assert network(found.images).logits.argmax(1).tolist() == found.predictions.tolist()


def test_starts_are_a_function_of_seed_metric_and_batch(network, splits):
    first = measure(network, splits, WEAK, keep_images=True).images
    torch.rand(7)  # the global generator takes no part
    assert torch.equal(first, measure(network, splits, WEAK, keep_images=True).images)
    assert not torch.equal(first, measure(network, splits, WEAK, seed=1, keep_images=True).images)
    assert not torch.equal(first, measure(network, splits, WEAK, metric="cw20", keep_images=True).images)
    x, y = splits.test.images[16:32] / 255, splits.test.labels[16:32]
    again = WEAK(network, x, y, generator(CPU, 0, "evaluate", "pgd20", 1))
    assert torch.equal(first[16:32], again.images)


@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_images_that_stay_misclassified_are_not_forwarded_again(splits, loss):
    network = trained(splits, make=lambda classes: SmallCNN(1, 8, classes, 4))
    pgd = PGD(eps=0.1, step_size=0.03, steps=8, loss=loss, start="uniform", clip_start=True, stop=misclassified)
    forwarded = []
    network.register_forward_hook(lambda module, inputs, output: forwarded.append(len(inputs[0])))
    found = accuracy(network, splits.test, torch.arange(48), 48, CPU, pgd, 0, "pgd20", keep_images=True)
    fewer = sum(forwarded)
    forwarded.clear()
    x, y = splits.test.images[:48].float() / 255, splits.test.labels[:48]
    with evaluating(network):
        everyone = pgd(network, x, y, generator(CPU, 0, "evaluate", "pgd20", 0)).images
    assert torch.equal(found.images, everyone)
    assert 0 < int(found.correct.sum()) < 48
    assert fewer < sum(forwarded)


def test_the_network_is_left_as_it_was(network, splits):
    network.train()
    network.body[2].eval()  # a frozen BatchNorm
    modes = [module.training for module in network.modules()]
    before = report.digest(network.state_dict().values())
    measure(network, splits, WEAK)
    assert [module.training for module in network.modules()] == modes
    assert report.digest(network.state_dict().values()) == before
    assert all(parameter.grad is None for parameter in network.parameters())
    network.train()


def test_evaluation_is_in_float32_under_a_callers_autocast(network, splits):
    plain = measure(network, splits, WEAK, keep_images=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = measure(network, splits, WEAK, keep_images=True)
    assert torch.equal(plain.images, inside.images)


def test_modes_come_back_after_an_error(network, splits):
    network.train()

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(network, splits, poll=stop)
    with pytest.raises(RuntimeError), evaluating(network):
        network(torch.zeros(2, 1, 5, 5))
    assert network.training and torch.backends.cudnn.allow_tf32


def test_no_examples_are_refused(network, splits):
    with pytest.raises(ValueError, match="no example"):
        measure(network, splits, indices=torch.arange(0))


# --- what is stored -----------------------------------------------------------------------------------------


def test_a_stored_evaluation_is_found_under_equal_settings_only(rundir):
    outcomes = Outcomes(torch.tensor([4, 9]), torch.tensor([1, 2]), torch.tensor([1, 0]))
    settings, result = {"eps": 8 / 255, "seed": 0, "start": None}, {"value": 50.0}
    assert report.finished(rundir, "best", "pgd20", settings) is None
    report.write(rundir, "best", "pgd20", settings, result, outcomes)
    assert report.finished(rundir, "best", "pgd20", settings) == result
    assert report.finished(rundir, "best", "pgd20", settings | {"seed": 1}) is None
    assert report.finished(rundir, "best", "pgd20", {"eps": 8 / 255, "seed": 0}) is None  # no start is not one of None
    assert report.finished(rundir, "last", "pgd20", settings) is None
    assert report.path(rundir, "best", "pgd20", "csv").read_text() == (
        "index,label,prediction,correct\n4,1,1,1\n9,2,0,0\n"
    )


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_a_damaged_evaluation_is_done_again(rundir, suffix):
    outcomes = Outcomes(torch.tensor([4, 9]), torch.tensor([1, 2]), torch.tensor([1, 0]))
    report.write(rundir, "best", "natural", {}, {"value": 50.0}, outcomes)
    path = report.path(rundir, "best", "natural", suffix)
    whole = path.read_bytes()
    path.write_bytes(whole[:20])
    assert report.finished(rundir, "best", "natural", {}) is None
    path.unlink()
    assert report.finished(rundir, "best", "natural", {}) is None
    path.write_bytes(whole)
    assert report.finished(rundir, "best", "natural", {}) == {"value": 50.0}
    report.path(rundir, "best", "natural", "json").write_text('{"settings": {}, "result": 3, "rows": 0}')
    assert report.finished(rundir, "best", "natural", {}) is None


def test_digests_tell_values_shapes_and_types_apart():
    tensors = [
        torch.zeros(4),
        torch.zeros(2, 2),
        torch.zeros(4).int(),
        torch.ones(4),
        torch.tensor(0.0),
        torch.zeros(4).bfloat16(),
    ]
    assert len({report.digest([tensor]) for tensor in tensors}) == len(tensors)
    assert report.digest([torch.zeros(4)]) == report.digest([torch.zeros(8)[::2]])


# --- a whole checkpoint -------------------------------------------------------------------------------------


def test_events_carry_their_threat_model(network, standard, splits, rundir):
    found = run(recipe(), splits, network, rundir, standard)
    assert [event["metric"] for event in found] == ["natural", "pgd20", "cw20", "topo_natural", "topo_robust", "l_tp"]
    common = {"split": "test", "checkpoint": "last", "epoch": 3, "rule": "last epoch", "n": 50, "of": 50, "seed": 0}
    for event in found:
        assert event["event"] == "eval"
        assert {key: event[key] for key in common} == common
        assert event["seconds"] >= 0
        assert not [key for key in event if key.endswith("digest")]
    pgd20 = found[1]
    model = {"attack": "pgd", "norm": "linf", "eps": 0.1, "steps": 20, "start": "uniform", "protocol": "lbgat"}
    assert {key: pgd20[key] for key in model} == model
    assert pgd20["step_size"] == pytest.approx(0.003 * 0.1 / 0.031)
    assert pgd20["implementation"] and pgd20["version"]
    assert (found[3]["k"], found[3]["distance"], found[3]["support"]) == (5, "cosine", 180)
    assert found[5]["batches"] == 1
    assert 0 <= pgd20["value"] <= found[0]["value"] <= 100


def test_a_row_for_each_example(network, splits, rundir):
    found = values(run(recipe(topology=False), splits, network, rundir))
    for metric in ("natural", "pgd20", "cw20"):
        with report.path(rundir, "last", metric, "csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [int(row["index"]) for row in rows] == list(range(50))
        assert [int(row["label"]) for row in rows] == splits.test.labels.tolist()
        assert all((row["label"] == row["prediction"]) == (row["correct"] == "1") for row in rows)
        assert 100 * sum(row["correct"] == "1" for row in rows) / 50 == found[metric]
        stored = json.loads(report.path(rundir, "last", metric, "json").read_text())
        assert stored["result"]["value"] == found[metric]


class Untouchable(torch.nn.Module):
    """The same weights, and a forward that fails."""

    def __init__(self, network):
        super().__init__()
        self.body, self.head = network.body, network.head

    def forward(self, x):
        raise AssertionError("this was evaluated already")


def test_finished_evaluations_are_told_again_and_not_repeated(network, standard, splits, rundir):
    first = run(recipe(), splits, network, rundir, standard)
    again = run(recipe(), splits, Untouchable(network), rundir, Untouchable(standard))
    assert again == first
    for other in (recipe(seed=1), recipe(eps=0.2), recipe(batch_size=8), recipe(protocol="las"), recipe(examples=20)):
        with pytest.raises(AssertionError, match="already"):
            run(other, splits, Untouchable(network), rundir)
    with pytest.raises(AssertionError, match="already"):
        run(recipe(), splits, Untouchable(trained(splits, seed=5)), rundir)
    with pytest.raises(AssertionError, match="already"):
        run(recipe(), splits, Untouchable(network), rundir, checkpoint=LAST | {"epoch": 4})


def test_where_the_last_epoch_was_the_best_it_is_measured_once(network, standard, splits, rundir):
    best = {"name": "best", "epoch": 3, "rule": "best pgd20 on validation"}
    first = run(recipe(), splits, network, rundir, standard, checkpoint=best)
    last = run(recipe(), splits, Untouchable(network), rundir, Untouchable(standard))
    assert last == [event | {"checkpoint": "last", "rule": "last epoch", "measured_on": "best"} for event in first]
    for metric in ("natural", "pgd20", "topo_robust"):
        rows = [report.path(rundir, name, metric, "csv").read_bytes() for name in ("best", "last")]
        assert rows[0] == rows[1]
    with pytest.raises(AssertionError, match="already"):  # other weights
        run(recipe(), splits, Untouchable(trained(splits, seed=5)), rundir)
    again = run(recipe(), splits, Untouchable(network), rundir, Untouchable(standard))
    assert again == last
    report.path(rundir, "best", "pgd20", "csv").unlink()  # a damaged one is not taken over
    report.path(rundir, "last", "pgd20", "json").unlink()
    with pytest.raises(AssertionError, match="already"):
        run(recipe(), splits, Untouchable(network), rundir, Untouchable(standard))


def test_a_stopped_evaluation_goes_on_to_the_same_numbers(network, standard, splits, tmp_path):
    whole = values(run(recipe(), splits, network, RunDir(tmp_path / "whole"), standard))
    rundir = RunDir(tmp_path / "parts")
    patience, stops = 2, 0
    while True:
        left = iter(range(patience))
        try:
            found = run(
                recipe(), splits, network, rundir, standard, should_stop=lambda left=left: next(left, None) is None
            )
            break
        except Stopped:
            stops, patience = stops + 1, patience + 3
    assert stops > 3
    assert values(found) == whole


def test_topology_scores_and_l_tp_against_their_definitions(network, standard, splits, rundir):
    found = values(run(recipe(attacks=["pgd20"]), splits, network, rundir, standard))
    pgd = attack(threat(recipe().eval, "pgd20", 10))
    train = accuracy(network, splits.train, torch.arange(90), 16, CPU, pgd, 0, "topology-support", keep_images=True)
    test = accuracy(network, splits.test, torch.arange(50), 16, CPU, pgd, 0, "pgd20", keep_images=True)
    natural = splits.test.images.float() / 255
    with evaluating(network, standard), torch.no_grad():
        support = torch.cat([network(splits.train.images.float() / 255).features, network(train.images).features])
        labels = torch.cat([splits.train.labels, splits.train.labels])
        queries = {"topo_natural": network(natural).features, "topo_robust": network(test.images).features}
        for metric, features in queries.items():
            voted = knn_predict(support, labels, features, 5)
            assert found[metric] == 100 * int((voted == splits.test.labels).sum()) / len(voted)
        expected = float(topology_loss(standard(natural).features, queries["topo_robust"]))
    assert found["l_tp"] == pytest.approx(expected, rel=1e-4)


def test_l_tp_uses_full_batches_of_128(network, standard, rundir):
    found = run(recipe(attacks=[], topology=False), tiny_splits(test=300), network, rundir, standard)
    assert found[-1]["metric"] == "l_tp" and found[-1]["batches"] == 2


def test_l_tp_needs_three_images(network, standard, rundir):
    found = run(recipe(attacks=[], topology=False), tiny_splits(test=2), network, rundir, standard)
    assert [event["event"] for event in found] == ["warning", "eval"]
    assert "3 test images" in found[0]["message"]


def test_topology_does_not_depend_on_which_attacks_are_asked_for(network, splits, tmp_path):
    with_it = values(run(recipe(attacks=["pgd20"]), splits, network, RunDir(tmp_path / "a")))
    without = values(run(recipe(attacks=[]), splits, network, RunDir(tmp_path / "b")))
    assert set(without) == {"natural", "topo_natural", "topo_robust"}
    assert without == {metric: with_it[metric] for metric in without}


def test_subsets_are_fixed_and_said(network, splits, rundir):
    small = recipe(attacks=["pgd20"], examples=20, topology_support=40, topology_distance="euclidean")
    found = run(small, splits, network, rundir)
    assert {(event["n"], event["of"]) for event in found} == {(20, 50)}
    assert (found[-1]["support"], found[-1]["distance"]) == (80, "euclidean")
    with report.path(rundir, "last", "pgd20", "csv").open() as file:
        assert [int(row["index"]) for row in csv.DictReader(file)] == subset(splits.test, 20).tolist()


def test_k_shrinks_to_a_small_support_and_says_so(network, splits, rundir):
    found = run(recipe(attacks=[], topology_support=2, topology_k=30), splits, network, rundir)
    warnings = [event for event in found if event["event"] == "warning"]
    assert len(warnings) == 1 and "k = 4, not 30" in warnings[0]["message"]
    assert [event["k"] for event in found if "k" in event] == [4, 4]


def test_the_accuracies_that_choose_best(network, splits):
    network.train()
    chosen = select_accuracies(recipe(), network, splits.validation, CPU)
    assert list(chosen) == ["natural", "pgd10"]
    assert chosen["pgd10"] < chosen["natural"] <= 100
    assert select_accuracies(recipe(), network, splits.validation, CPU) == chosen
    assert list(select_accuracies(recipe(best_by="natural"), network, splits.validation, CPU)) == ["natural"]
    assert network.training
