"""The shared losses: values against loops written from the formulas, and finite gradients at extreme logits."""

import numpy as np
import pytest
import torch
from oracles import methods as oracle

from engine import losses


def pair(seed=0, batch=4, classes=5):
    generator = torch.Generator().manual_seed(seed)
    first, second = (3 * torch.randn(batch, classes, generator=generator, dtype=torch.float64) for _ in range(2))
    return first, second, torch.randint(0, classes, (batch,), generator=generator)


def test_values_equal_the_formulas():
    z, other, y = pair()
    assert losses.cross_entropy(z, y).item() == pytest.approx(oracle.cross_entropy(z.numpy(), y), abs=1e-12)
    assert losses.kl_divergence(z, other).item() == pytest.approx(oracle.kl(z.numpy(), other.numpy()), abs=1e-12)
    assert losses.mse(z, other).item() == pytest.approx(oracle.mse(z.numpy(), other.numpy()), abs=1e-12)


def test_per_sample_forms_have_the_batch_mean_as_their_mean():
    z, other, y = pair(1)
    assert torch.allclose(losses.cross_entropy_per_sample(z, y).mean(), losses.cross_entropy(z, y))
    assert torch.allclose(losses.kl_divergence_per_sample(z, other).mean(), losses.kl_divergence(z, other))
    assert losses.cross_entropy_per_sample(z, y).shape == losses.kl_divergence_per_sample(z, other).shape == (4,)


def test_margin_is_the_best_wrong_logit_minus_the_right_one():
    logits = torch.tensor([[1.0, 5.0, 2.0], [3.0, 0.0, -1.0]])
    assert losses.margin(logits, torch.tensor([1, 2])).tolist() == [-3.0, 4.0]
    assert torch.autograd.gradcheck(lambda z: losses.margin(z, torch.tensor([1, 2])), logits.double().requires_grad_())


def test_the_kl_sends_gradient_into_both_arguments():
    z, other, _ = pair(2)
    assert torch.autograd.gradcheck(losses.kl_divergence, (z.requires_grad_(), other.requires_grad_()))


@pytest.mark.parametrize("size", [200.0, 1e4, 1e30])
def test_probabilities_of_zero_leave_loss_and_gradient_finite(size):
    natural = torch.tensor([[size, 0.0, -size], [0.0, 1.0, 2.0]], requires_grad=True)
    other = torch.tensor([[-1.0, 0.0, 1.0], [3.0, 2.0, 1.0]], requires_grad=True)
    assert natural.softmax(1)[0, 1] == 0
    value = losses.kl_divergence(natural, other)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(natural.grad).all()
    assert torch.isfinite(other.grad).all()
    assert other.grad.abs().sum() > 0


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_before_anything_is_summed(half):
    z, other, y = pair(3)
    z, other = z.to(half), other.to(half)
    for value, exact in [
        (losses.cross_entropy(z, y), oracle.cross_entropy(z.double().numpy(), y)),
        (losses.kl_divergence(z, other), oracle.kl(z.double().numpy(), other.double().numpy())),
        (losses.mse(z, other), oracle.mse(z.double().numpy(), other.double().numpy())),
        (losses.margin(z, y).mean(), np.mean(losses.margin(z.double(), y).numpy())),
    ]:
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(exact, rel=1e-5)


def test_wider_types_stay_as_they_are():
    assert losses.wide(torch.zeros(1, dtype=torch.float64)).dtype == torch.float64
    assert losses.wide(torch.zeros(1)).dtype == torch.float32
