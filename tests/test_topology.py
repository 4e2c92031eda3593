"""L_TP: the worked example, every reading against its pair-by-pair oracle, gradients, and the term of a run."""

import itertools
import math

import numpy as np
import pytest
import torch
from oracles import topology as oracle
from oracles.network import gradient

from engine import recipe
from engine.models.output import Output
from engine.regularizers.topology import FeatureBank, Reading, TopologyTerm, neighbor_graph, ramp, topology_loss
from engine.step import Batch, Perturbed, Position, Step

# A worked example of four samples in three and four dimensions, TRAIN eq. 9-16, with its intermediate results.
H = torch.tensor([[1, 2, 0], [0, 1, 1], [2, 0, 1], [1, 1, 3]], dtype=torch.float64)
H_PRIME = torch.tensor([[1, 0, 1, 2], [0, 2, 1, 0], [1, 1, 0, 0], [3, 0, 1, 1]], dtype=torch.float64)
P = [
    [0.0, 0.33942902, 0.32150809, 0.28879287],
    [0.36103632, 0.0, 0.30590173, 0.37222363],
    [0.31907388, 0.27911563, 0.0, 0.33898350],
    [0.31988980, 0.38145535, 0.37259018, 0.0],
]
Q = [
    [0.0, 0.30680212, 0.29228899, 0.37754768],
    [0.28914326, 0.0, 0.35322215, 0.26358322],
    [0.31038830, 0.39584340, 0.0, 0.35886911],
    [0.40046843, 0.29735448, 0.35448885, 0.0],
]
EXAMPLE = [
    ({}, 0.128835568548),
    ({"reduction": "mean-columns"}, 0.032208892137),
    ({"reduction": "mean-pairs"}, 0.010736297379),
    ({"divergence": "kl"}, 0.085838620345),
    ({"rho": "none"}, 0.178663381498),
    ({"denominator": "literal"}, 0.149676546446),
]
READINGS = [
    dict(zip(("rho", "denominator", "diagonal", "reduction", "divergence", "rescale"), values, strict=True))
    for values in itertools.product(
        ("batch", "none"),
        ("column", "literal"),
        ("exclude", "include"),
        ("sum", "mean-columns", "mean-pairs"),
        ("bernoulli", "kl", "cross-entropy"),
        (False, True),
    )
]


def features(seed, count=6, size=4):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_neighbor_graph_of_the_example():
    for points, expected in ((H, P), (H_PRIME, Q)):
        graph = neighbor_graph(points)
        assert (graph - torch.tensor(expected, dtype=torch.float64)).abs().max() < 5e-9
        assert torch.equal(graph.diagonal(), torch.zeros(4, dtype=torch.float64))
        assert torch.allclose(graph.sum(0), torch.ones(4, dtype=torch.float64))


def test_literal_denominators_of_the_example():
    sums = neighbor_graph(H, Reading(denominator="literal")).sum(0)
    assert sums.tolist() == pytest.approx([1.0954, 0.9293, 1.0624, 0.9309], abs=5e-5)


@pytest.mark.parametrize(("reading", "value"), EXAMPLE)
def test_values_of_the_example(reading, value):
    assert abs(topology_loss(H, H_PRIME, Reading(**reading)).item() - value) < 1e-9
    assert abs(oracle.loss(H.numpy(), H_PRIME.numpy(), **reading) - value) < 1e-9


def test_the_example_with_its_diagonal():
    assert neighbor_graph(H, Reading(diagonal="include"))[0, 0].item() == pytest.approx(0.43, abs=5e-3)


def test_every_reading_equals_the_formula_in_value_and_gradient():
    h, h_prime = features(1), features(2)
    for reading in READINGS:
        student = h_prime.clone().requires_grad_()
        value = topology_loss(h, student, Reading(**reading))
        assert value.item() == pytest.approx(oracle.loss(h.numpy(), h_prime.numpy(), **reading), abs=1e-9), reading
        value.backward()
        assert torch.isfinite(student.grad).all()
    for reading in READINGS[::7]:
        student = h_prime.clone().requires_grad_()
        topology_loss(h, student, Reading(**reading)).backward()
        slope = gradient(lambda f, r=reading: oracle.loss(h.numpy(), f, **r), h_prime.numpy())
        assert np.abs(student.grad.numpy() - slope).max() < 1e-9, reading


def test_the_gradient_is_that_of_finite_differences_for_both_networks():
    h, h_prime = features(3).requires_grad_(), features(4, size=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: topology_loss(a, b, detach=False), (h, h_prime))


def test_no_gradient_reaches_the_standard_network_unless_asked():
    h, h_prime = features(3).requires_grad_(), features(4).requires_grad_()
    topology_loss(h, h_prime).backward()
    assert h.grad is None
    assert h_prime.grad.abs().sum() > 0
    topology_loss(h, h_prime, detach=False).backward()
    assert h.grad.abs().sum() > 0


def test_without_the_gradient_of_rho_it_is_held_constant():
    h, h_prime = features(3), features(4)
    student = h_prime.clone().requires_grad_()
    topology_loss(h, student, Reading(rho_gradient=False)).backward()
    held, teacher = oracle.nearest(h_prime.numpy()), oracle.graph(h.numpy())
    slope = gradient(lambda f: oracle.divergence(teacher, oracle.graph(f, held=held)), h_prime.numpy())
    assert np.abs(student.grad.numpy() - slope).max() < 1e-9
    flowing = h_prime.clone().requires_grad_()
    topology_loss(h, flowing).backward()
    assert not torch.allclose(flowing.grad, student.grad)


def test_equal_graphs_cost_nothing_and_scale_does_not_matter():
    h = features(5)
    assert topology_loss(h, h).abs() < 1e-12
    assert torch.allclose(topology_loss(h, features(6)), topology_loss(h * 7, features(6) * 0.01))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_than_three_samples_are_refused_by_name(count):
    with pytest.raises(ValueError, match=r"3 samples or more"):
        topology_loss(torch.ones(count, 4), torch.ones(count, 4))


def test_the_set_reading_alone_knows_no_neighbours():
    with pytest.raises(ValueError, match='rho="set"'):
        topology_loss(features(1), features(2), Reading(rho="set"))


def test_float64_is_kept_and_half_precision_is_computed_in_float32():
    h, h_prime = features(7, 16, 32), features(8, 16, 32)
    exact = topology_loss(h, h_prime)
    assert exact.dtype == torch.float64
    assert topology_loss(h.float(), h_prime.float()).item() == pytest.approx(exact.item(), rel=1e-4)
    rounded, rounded_prime = h.bfloat16(), h_prime.bfloat16()
    low = topology_loss(rounded, rounded_prime)
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(topology_loss(rounded.double(), rounded_prime.double()).item(), rel=1e-4)


def test_autocast_does_not_reach_inside():
    h, h_prime = features(7, 16, 32).float(), features(8, 16, 32).float()
    outside = topology_loss(h, h_prime)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(topology_loss(h, h_prime), outside)


def test_degenerate_features_give_finite_values_and_gradients():
    zero, same = torch.zeros(4, 3), torch.ones(4, 3)
    opposite = torch.tensor([[1.0, 0], [-1, 0], [-1, 0]])
    odd = [(zero, same), (same, zero), (opposite, opposite.roll(1, 0)), (features(1, 4, 3).float() * 1e15, same)]
    for (h, h_prime), reading in itertools.product(odd, READINGS):
        student = h_prime.clone().requires_grad_()
        value = topology_loss(h, student, Reading(**reading))
        value.backward()
        assert torch.isfinite(value), reading
        assert torch.isfinite(student.grad).all(), reading


def test_rescaling_makes_the_sum_what_128_samples_would_give():
    h, h_prime = features(1, 16), features(2, 16)
    assert torch.allclose(topology_loss(h, h_prime, Reading(rescale=True)), 8 * topology_loss(h, h_prime))


# --- ramp --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("t", "value"),
    [(0, 0), (1, 0.049958), (5, 0.244919), (10, 0.462117), (25, 0.848284), (50, 0.986614), (75, 0.998894),
     (100, 0.999909), (110, 0.999967)],
)  # fmt: skip
def test_the_ramp_rises_from_zero_to_one(t, value):
    assert ramp(t, "dann", 1, 100, 110) == pytest.approx(value, abs=5e-7)
    assert ramp(t + 1, "dann", 0, 100, 110) == pytest.approx(value, abs=5e-7)


def test_the_ramp_as_printed_starts_high():
    assert ramp(1, "literal", 0, 100, 100) == pytest.approx(1.46, abs=5e-3)
    assert 20 * ramp(1, "literal", 0, 100, 100) == pytest.approx(29.24, abs=5e-3)
    assert ramp(100, "literal", 1, 100, 100) == pytest.approx(2, abs=1e-4)


def test_a_period_of_zero_is_the_number_of_epochs():
    assert ramp(5, "dann", 1, 0, 20) == pytest.approx(ramp(25, "dann", 1, 100, 100))


def test_the_weight_follows_the_recipe():
    constant = TopologyTerm(recipe.Topology(weight=5.0), 100, 10, "cpu")
    ramped = TopologyTerm(recipe.Topology(weight=20.0, ramp=True), 100, 10, "cpu")
    literal = recipe.Topology(weight=20.0, ramp=True, ramp_form="literal", ramp_first=0, ramp_period=0)
    assert [constant.scale(epoch) for epoch in (1, 100)] == [5.0, 5.0]
    assert ramped.scale(10) == pytest.approx(20 * 0.462117, abs=1e-5)
    assert TopologyTerm(literal, 40, 10, "cpu").scale(1) == pytest.approx(40 / (1 + math.exp(-1)))


# --- the term of a run -------------------------------------------------------------------------------------------


def step(standard, adversarial=None, natural=None, index=None):
    """A Step whose three forwards return the given features."""
    count = len(standard)
    batch = Batch(
        torch.zeros(count, 1), torch.zeros(count, dtype=torch.long), torch.arange(count) if index is None else index
    )
    known = {"standard": standard, "adversarial": adversarial, "natural": natural}
    network = torch.nn.Identity()
    return Step(
        network,
        network,
        batch,
        Perturbed(batch, batch.x, torch.zeros_like(batch.y)),
        lambda _, images, purpose: Output(known[purpose], images),
        Position(1, 2, 0, 3),
    )


def term(size=20, **section):
    return TopologyTerm(recipe.Topology(**section), 100, size, "cpu")


def test_the_reading_is_the_recipes():
    section = recipe.Topology(rho="none", rho_gradient=False, denominator="literal", diagonal="include")
    assert Reading.of(section) == Reading("none", False, "literal", "include")
    assert Reading.of(recipe.Topology()) == Reading()


def test_the_default_term_is_the_loss_of_the_adversarial_features():
    h, adversarial = features(1).requires_grad_(), features(2).requires_grad_()
    value = term().loss(step(h, adversarial))
    assert torch.equal(value, topology_loss(h, adversarial))
    value.backward()
    assert h.grad is None
    assert term().needs == ("standard", "adversarial")
    assert term().state() == {}


def test_the_variants_differ_in_who_follows_whom():
    for variant, follows in (("joint", False), ("star", False), ("prime", True)):
        h, adversarial = features(1).requires_grad_(), features(2).requires_grad_()
        term(variant=variant).loss(step(h, adversarial)).backward()
        assert (h.grad is not None) == follows


def test_the_features_come_from_the_source_that_the_recipe_names():
    h, adversarial, natural = features(1), features(2), features(3)
    on_adversarial, on_natural = topology_loss(h, adversarial), topology_loss(h, natural)
    assert term(source="natural").needs == ("standard", "natural")
    assert torch.equal(term(source="natural").loss(step(h, None, natural)), on_natural)
    assert term(source="both").needs == ("standard", "adversarial", "natural")
    both = term(source="both").loss(step(h, adversarial, natural))
    assert torch.allclose(both, (on_adversarial + on_natural) / 2)


@pytest.mark.parametrize("count", [1, 2])
def test_a_last_batch_too_small_for_neighbours_costs_nothing(count):
    for rho in ("batch", "set"):
        value = term(rho=rho).loss(step(features(1, count), features(2, count)))
        assert value == 0
        assert value.dim() == 0


def test_the_set_reading_looks_through_the_most_recent_features_of_all_samples():
    section = {"rho": "set"}
    running = term(size=9, **section)
    memory = {"standard": {}, "adversarial": {}}
    for seed, index in enumerate(([0, 1, 2, 3], [4, 5, 6, 7], [2, 0, 8, 5], [1, 3, 4, 6])):
        h, adversarial = features(10 + seed, 4), features(20 + seed, 4).requires_grad_()
        value = running.loss(step(h, adversarial, index=torch.tensor(index)))
        value.backward()
        others = []
        for name in ("standard", "adversarial"):
            rows = [row for sample, row in memory[name].items() if sample not in index]
            others.append([rows] * 4)
        expected = oracle.loss(h.numpy(), adversarial.detach().numpy(), others=others)
        assert value.item() == pytest.approx(expected, abs=1e-9)
        slope = gradient(
            lambda f, h=h, others=others: oracle.loss(h.numpy(), f, others=others), adversarial.detach().numpy()
        )
        assert np.abs(adversarial.grad.numpy() - slope).max() < 1e-9
        if seed:
            assert value.item() != pytest.approx(oracle.loss(h.numpy(), adversarial.detach().numpy()), abs=1e-6)
        for row, sample in enumerate(index):
            memory["standard"][sample] = h.numpy()[row]
            memory["adversarial"][sample] = adversarial.detach().numpy()[row]


def test_the_memory_survives_a_checkpoint(tmp_path):
    from safetensors.torch import load_file, save_file

    first = term(size=12, rho="set", source="both")
    for seed, index in enumerate(([0, 1, 2, 3], [4, 5, 6, 7])):
        first.loss(step(features(seed, 4), features(seed + 5, 4), features(seed + 9, 4), torch.tensor(index)))
    save_file(first.state(), tmp_path / "state.safetensors")
    second = term(size=12, rho="set", source="both")
    second.load_state(load_file(tmp_path / "state.safetensors"))
    later = [step(features(30, 4), features(31, 4), features(32, 4), torch.tensor([8, 2, 9, 5])) for _ in range(2)]
    assert torch.equal(first.loss(later[0]), second.loss(later[1]))
    assert set(first.state()) == {f"{n}.{k}" for n in ("standard", "adversarial", "natural") for k in ("seen", "rows")}
    assert all(torch.equal(value, second.state()[name]) for name, value in first.state().items())


def test_a_memory_without_features_can_be_saved_and_taken_up_too():
    fresh = term(size=5, rho="set")
    assert set(fresh.state()) == {"standard.seen", "adversarial.seen"}
    other = term(size=5, rho="set")
    other.load_state(fresh.state())
    assert torch.equal(other.loss(step(H, H_PRIME)), topology_loss(H, H_PRIME))


def test_a_bank_knows_nobody_before_it_has_seen_somebody():
    bank = FeatureBank(6, "cpu")
    assert bank.nearest(H, torch.arange(4)).isinf().all()
    bank.remember(H, torch.arange(4))
    assert bank.nearest(H, torch.arange(4)).isinf().all(), "the batch itself is no neighbour from outside"
    assert bank.nearest(H[:1], torch.tensor([5])).item() == pytest.approx(0, abs=1e-12)
