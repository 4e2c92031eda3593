"""RKD, CRD and MCA: values and gradients against their oracles, and what they remember from step to step."""

import numpy as np
import pytest
import torch
from oracles import terms as oracle
from oracles.network import gradient

from engine import recipe
from engine.models.output import Output
from engine.randomness import generator
from engine.regularizers.crd import Crd, draw_negatives
from engine.regularizers.mca import Mca
from engine.regularizers.rkd import Rkd, angle_loss, cosine_loss, distance_loss
from engine.step import Batch, Perturbed, Position, Step
from engine.task import Task

LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 3, 3, 0])


def features(seed, count=6, size=4):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def task(width=4, standard=3, labels=LABELS):
    return Task(recipe.check({}), 4, (1, 2, 2), labels, width, standard, torch.device("cpu"))


def step(standard=None, adversarial=None, natural=None, index=(0, 1, 2, 3, 4, 5), batch=0, labels=LABELS):
    """A Step whose forwards return the given features."""
    index = torch.tensor(index)
    images = Batch(torch.zeros(len(index), 1), labels[index], index)
    known = {"standard": standard, "adversarial": adversarial, "natural": natural}
    network = torch.nn.Identity()
    return Step(
        network, network, images, Perturbed(images, images.x, torch.zeros_like(images.y)),
        lambda _, images, purpose: Output(known[purpose], images), Position(1, 2, batch, 3),
    )  # fmt: skip


def assert_slope(formula, *tensors):
    """Their gradients are the derivatives of `formula(values of all)`, 0 where there are none."""
    for place, tensor in enumerate(tensors):
        values = [other.detach().numpy() for other in tensors]
        slope = gradient(lambda value, p=place, v=values: formula(*v[:p], value, *v[p + 1 :]), values[place])
        found = np.zeros_like(slope) if tensor.grad is None else tensor.grad.numpy()
        assert np.abs(found - slope).max() < 1e-6, place


# --- RKD ---------------------------------------------------------------------------------------------------------

LOSSES = [
    (cosine_loss, oracle.rkd_cosine),
    (distance_loss, oracle.rkd_distance),
    (angle_loss, oracle.rkd_angle),
]


@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize(("loss", "formula"), LOSSES)
def test_rkd_equals_the_formula_in_value_and_gradient(loss, formula, count):
    # far apart, so that smoothL1 is met on both sides of 1
    teacher, student = features(1, count, 5), features(2, count).mul(9).requires_grad_()
    value = loss(teacher, student)
    assert value.item() == pytest.approx(formula(teacher.numpy(), student.detach().numpy()), abs=1e-9)
    value.backward()
    assert_slope(lambda s: formula(teacher.numpy(), s), student)


def test_the_linear_part_of_smooth_l1_is_reached():
    line = torch.tensor([[0.0, 0], [1, 0], [2, 0], [100, 0]], dtype=torch.float64)
    student = torch.tensor([[0.0, 0], [90, 1], [2, 0], [3, 0]], dtype=torch.float64)
    for loss, formula in LOSSES[1:]:
        assert loss(line, student).item() == pytest.approx(formula(line.numpy(), student.numpy()), abs=1e-9)
    assert (
        max(abs(v) for row in np.subtract(oracle.shares(student.numpy()), oracle.shares(line.numpy())) for v in row) > 1
    )
    opposite = torch.tensor([[1.0, 0], [1, 0.01], [-1, 0]], dtype=torch.float64)
    turned = opposite.roll(1, 0)
    value = cosine_loss(opposite, turned).item()
    assert value == pytest.approx(oracle.rkd_cosine(opposite.numpy(), turned.numpy()), abs=1e-9)
    assert value > 0.5


def test_more_samples_than_are_compared_at_a_time():
    teacher, student = features(3, 18, 2), features(4, 18, 2).requires_grad_()
    value = angle_loss(teacher, student)
    value.backward()
    assert value.item() == pytest.approx(oracle.rkd_angle(teacher.numpy(), student.detach().numpy()), abs=1e-9)
    whole = student.detach().clone().requires_grad_()
    arms, theirs = whole - whole.unsqueeze(1), teacher - teacher.unsqueeze(1)
    off = ~torch.eye(18, dtype=torch.bool)
    unit = [torch.where(off.unsqueeze(2), a / a.square().sum(2, keepdim=True).clamp_min(1e-30).sqrt(), 0)
            for a in (arms, theirs)]  # fmt: skip
    torch.nn.functional.smooth_l1_loss(unit[0] @ unit[0].mT, unit[1] @ unit[1].mT).backward()
    assert (whole.grad - student.grad).abs().max() < 1e-12


@pytest.mark.parametrize(("loss", "formula"), LOSSES)
def test_identical_samples_have_no_angle_and_no_wild_gradient(loss, formula):
    teacher = features(5)
    student = features(6)
    student[3] = student[1]  # at one place for M', not for M
    teacher[4] = teacher[0]
    student.requires_grad_()
    value = loss(teacher, student)
    assert value.item() == pytest.approx(formula(teacher.numpy(), student.detach().numpy()), abs=1e-6)
    value.backward()
    assert_slope(lambda s: formula(teacher.numpy(), s), student)
    collapsed = torch.ones(4, 3, requires_grad=True)
    loss(features(7, 4).float(), collapsed).backward()
    assert collapsed.grad.abs().max() < 10


def test_rkd_takes_what_it_is_told_to():
    h, adversarial, natural = features(1, size=3), features(2), features(3)
    here = step(h, adversarial, natural)
    assert Rkd().needs == ("standard", "adversarial")
    assert torch.equal(Rkd().loss(here), cosine_loss(h, adversarial))
    assert Rkd(source="natural").needs == ("standard", "natural")
    assert torch.equal(Rkd(source="natural").loss(here), cosine_loss(h, natural))
    original = Rkd(form="original", distance=3.0, angle=5.0).loss(here)
    assert torch.equal(original, 3 * distance_loss(h, adversarial) + 5 * angle_loss(h, adversarial))
    assert Rkd(form="original").loss(here).item() == pytest.approx(
        oracle.rkd_distance(h.numpy(), adversarial.numpy()) + 2 * oracle.rkd_angle(h.numpy(), adversarial.numpy())
    )
    assert (Rkd().scale(1), Rkd(weight=3.0).scale(7), Rkd().state()) == (25.0, 3.0, {})


@pytest.mark.parametrize("form", ["cosine", "original"])
def test_a_single_sample_has_no_relations(form):
    value = Rkd(form=form).loss(step(features(1, 1), features(2, 1), index=(0,)))
    assert value == 0
    assert value.dim() == 0


# --- CRD ---------------------------------------------------------------------------------------------------------


def crd(**options):
    term = Crd(**{"negatives": 5, "dim": 3, **options}).prepared(task())
    term.memory.double()
    return term


def sides(memory):
    """(weight, bias, bank) of student and teacher as numpy arrays."""
    parts = (memory.student, memory.teacher)
    return [tuple(t.detach().numpy().copy() for t in (p.linear.weight, p.linear.bias, p.bank)) for p in parts]


def test_crd_equals_the_formula_over_two_steps():
    term = crd()
    memory, n = term.memory, len(LABELS)
    (ws, bs, bank_s), (wt, bt, bank_t) = sides(memory)
    totals = None
    for number, index in enumerate([(0, 1, 2, 3), (8, 3, 9, 1)]):
        teacher = features(10 + number, 4, 3)
        student = features(20 + number, 4).requires_grad_()
        chance = generator("cpu", recipe.Run().seed, "crd", 1, number)
        drawn = draw_negatives(LABELS, LABELS[list(index)], 5, chance).tolist()
        images = [[own, *others] for own, others in zip(index, drawn, strict=True)]

        def scores(f, weight, bias, bank, images=images):
            return oracle.crd_scores(oracle.embed(f, weight, bias), bank, images, 0.07)

        h = teacher.numpy()
        if totals is None:  # fixed from here on
            ours = scores(student.detach().numpy(), ws, bs, bank_t), scores(h, wt, bt, bank_s)
            totals = [oracle.crd_total(one, n) for one in ours]

        def formula(f, ws, bs, wt, bt, banks=(bank_s, bank_t), h=h, scores=scores, totals=totals):
            towards_teacher = oracle.crd_side(scores(f, ws, bs, banks[1]), totals[0], n)
            return towards_teacher + oracle.crd_side(scores(h, wt, bt, banks[0]), totals[1], n)

        value = term.loss(step(teacher, student, index=index, batch=number))
        assert value.item() == pytest.approx(formula(student.detach().numpy(), ws, bs, wt, bt), abs=1e-9)
        value.backward()
        heads = [*memory.student.linear.parameters(), *memory.teacher.linear.parameters()]
        assert_slope(formula, student, *heads)
        assert (memory.teacher.total.item(), memory.student.total.item()) == pytest.approx(totals)
        bank_s = np.array(oracle.crd_update(bank_s, oracle.embed(student.detach().numpy(), ws, bs), index, 0.5))
        bank_t = np.array(oracle.crd_update(bank_t, oracle.embed(h, wt, bt), index, 0.5))
        assert np.abs(memory.student.bank.numpy() - bank_s).max() < 1e-12
        assert np.abs(memory.teacher.bank.numpy() - bank_t).max() < 1e-12
        for head in heads:
            head.grad = None


def test_crd_starts_from_the_seed_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = crd(dim=12), crd(dim=12)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, second.state()[name]) for name, value in first.state().items())
    bank = first.memory.student.bank
    assert bank.abs().max() <= 0.5 and bank.abs().max() > 0.45  # 1/sqrt(12/3)
    assert not torch.equal(bank, first.memory.teacher.bank)
    assert {name.removesuffix(".weight").removesuffix(".bias") for name in first.learnt()} == {
        "student.linear", "teacher.linear"
    }  # fmt: skip
    assert {"student.bank", "teacher.bank", "student.total", "teacher.total"} < set(first.state())


def test_negatives_are_of_other_classes_and_differ_from_one_another():
    y = LABELS[:6]
    drawn = draw_negatives(LABELS, y, 8, torch.Generator().manual_seed(0))
    assert drawn.shape == (6, 8)
    assert (LABELS[drawn] != y.unsqueeze(1)).all()
    assert all(len(set(row)) == 8 for row in drawn.tolist())  # all there are, for class 0
    assert torch.equal(drawn, draw_negatives(LABELS, y, 8, torch.Generator().manual_seed(0)))
    assert not torch.equal(drawn, draw_negatives(LABELS, y, 8, torch.Generator().manual_seed(1)))
    assert drawn[0].tolist() != drawn[3].tolist()  # each image its own


def test_negatives_are_uniform():
    drawn = torch.stack([draw_negatives(LABELS, LABELS[:1], 3, torch.Generator().manual_seed(s)) for s in range(2000)])
    counts = drawn.flatten().bincount(minlength=len(LABELS)).double()
    others = LABELS.ne(LABELS[0])
    assert (counts[~others] == 0).all()
    assert (counts[others] / 2000 - 3 / 8).abs().max() < 0.06  # 5.5 standard deviations


def test_a_class_with_too_few_others_draws_them_again():
    labels = torch.tensor([0, 0, 0, 0, 0, 1, 1, 2])  # 3 others for class 0, 6 for class 1
    drawn = draw_negatives(labels, torch.tensor([0, 1]), 5, torch.Generator().manual_seed(3))
    assert set(drawn[0].tolist()) <= {5, 6, 7} and len(drawn[0]) == 5
    assert len(set(drawn[1].tolist())) == 5 and not {5, 6} & set(drawn[1].tolist())
    many = draw_negatives(labels, torch.tensor([0, 1]), 3000, torch.Generator().manual_seed(3))
    shares = many[0].bincount(minlength=8)[5:].double() / 3000
    assert (shares - 1 / 3).abs().max() < 0.05


def test_crd_draws_anew_in_every_step_and_needs_two_classes():
    term = crd()
    teacher, student = features(1, size=3), features(2)
    values = []
    for batch in (0, 0, 1):
        fresh = crd()
        fresh.load_state({name: value.clone() for name, value in term.state().items()})
        values.append(fresh.loss(step(teacher, student, batch=batch)).item())
    assert values[0] == values[1] != values[2]
    with pytest.raises(ValueError, match=r"terms\.crd: all training images are of one class"):
        Crd().prepared(task(labels=torch.zeros(9, dtype=torch.long)))


# --- MCA ---------------------------------------------------------------------------------------------------------


def test_mca_equals_the_formula_while_its_ring_fills_and_turns():
    term = Mca(negatives=7, temperature=0.3).prepared(task())
    term.memory.double()
    memory = []
    for number, index in enumerate([(0, 3, 6), (1, 0, 9), (2, 5, 4, 10), (0, 1, 2, 3, 4, 5, 6, 7, 8)]):
        labels = LABELS[list(index)].tolist()
        adversarial = features(30 + number, len(index)).requires_grad_()
        natural = features(40 + number, len(index)).requires_grad_()

        def formula(a, b, labels=labels, memory=tuple(memory)):
            return oracle.mca(a, b, labels, memory, 0.3)

        value = term.loss(step(None, adversarial, natural, index))
        assert value.item() == pytest.approx(formula(adversarial.detach().numpy(), natural.detach().numpy()), abs=1e-9)
        value.backward()
        assert_slope(formula, adversarial, natural)
        if number == 0:
            assert value == 0  # nothing is remembered
        else:
            assert adversarial.grad.abs().sum() > 0 < natural.grad.abs().sum()
        rows = natural.detach().numpy()
        memory = [*memory, *((oracle.unit(row), y) for row, y in zip(rows, labels, strict=True))][-7:]
    assert sorted(term.memory.labels.tolist()) == sorted(label for _, label in memory)
    assert term.memory.position == (3 + 3 + 4 + 7) % 7


def test_a_class_that_is_alone_in_the_ring_has_no_negatives():
    term = Mca(negatives=3).prepared(task())
    term.memory.double()
    for number in range(3):
        value = term.loss(step(None, features(number, 3), features(number + 5, 3), (0, 3, 6)))
        assert value == 0


def test_mca_needs_no_standard_network():
    assert Mca().needs == ("adversarial", "natural")
    settings = recipe.check({"method": {"name": "at"}, "terms": {"mca": {}}})
    assert not recipe.needs_standard(settings)
    assert recipe.needs_standard(recipe.check({"method": {"name": "at"}, "terms": {"mca": {}, "rkd": {}}}))
    assert recipe.needs_standard(recipe.check({"method": {"name": "at"}, "terms": {"crd": {}}}))


# --- all of them -------------------------------------------------------------------------------------------------

ALL = [Rkd(), Rkd(form="original"), Crd(negatives=5, dim=3), Mca(negatives=9)]


@pytest.mark.parametrize("term", ALL, ids=repr)
def test_no_gradient_reaches_m_and_half_precision_is_computed_in_float32(term):
    values = []
    for precision in (torch.float32, torch.bfloat16):
        ready = term.prepared(task())
        for number in range(2):
            given = [features(50 + 3 * number + k, size=size).to(torch.bfloat16) for k, size in enumerate((3, 4, 4))]
            leaves = [part.to(precision).requires_grad_() for part in given]
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
                value = ready.loss(step(*leaves, batch=number))
            value.backward()
        values.append(value)
        assert value.dtype == torch.float32
        assert leaves[0].grad is None
        assert leaves[1].grad.abs().sum() > 0
    assert torch.equal(*values)


@pytest.mark.parametrize("term", ALL, ids=repr)
def test_what_is_remembered_survives_a_checkpoint(term, tmp_path):
    from safetensors.torch import load_file, save_file

    first, second = term.prepared(task()), term.prepared(task())
    parts = [features(60 + k, size=size).float() for k, size in enumerate((3, 4, 4))]
    first.loss(step(*parts))
    save_file({name: value.detach() for name, value in first.state().items()}, tmp_path / "state.safetensors")
    second.load_state(load_file(tmp_path / "state.safetensors"))
    later = [features(70 + k, size=size).float() for k, size in enumerate((3, 4, 4))]
    assert torch.equal(first.loss(step(*later, batch=1)), second.loss(step(*later, batch=1)))
    assert all(torch.equal(value, second.state()[name]) for name, value in first.state().items())
