"""The optimizer against a slow one written independently."""

import copy

import numpy as np
import pytest
import torch

from edgesearch.training.optimizers import LARS


def slow_lars(weight, gradients, rates, *, momentum, weight_decay, trust, adapted):
    """Algorithm 1 of the paper, number by number."""
    weight, velocity = weight.astype(np.float64), np.zeros(weight.shape)
    for gradient, rate in zip(gradients, rates, strict=True):
        step = gradient.astype(np.float64)
        local = 1.0
        if adapted:
            step = step + weight_decay * weight
            lengths = [sum(float(v) ** 2 for v in x.flatten()) ** 0.5 for x in (weight, step)]
            local = trust * lengths[0] / lengths[1] if all(lengths) else 1.0
        velocity = momentum * velocity + rate * local * step
        weight = weight - velocity
    return weight


@pytest.mark.parametrize("shape", [(3, 2, 3, 3), (5, 4), (6,), ()])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_equals_the_slow_one(shape, momentum):
    generator = np.random.default_rng(0)
    start = generator.normal(size=shape).astype(np.float32)
    gradients = [np.float32(generator.normal(size=shape)) for _ in range(4)]
    rates = [0.1, 0.4, 0.3, 0.2]
    weight = torch.nn.Parameter(torch.tensor(start))
    optimizer = LARS([weight], 1.0, momentum=momentum, weight_decay=0.1, trust=0.02)
    for gradient, rate in zip(gradients, rates, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        weight.grad = torch.tensor(gradient)
        optimizer.step()
    expected = slow_lars(
        start,
        gradients,
        rates,
        momentum=momentum,
        weight_decay=0.1,
        trust=0.02,
        adapted=len(shape) > 1,
    )
    np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def moved(weight, gradient, **options):
    weight = torch.nn.Parameter(weight.clone())
    weight.grad = gradient.clone()
    LARS([weight], 0.5, **options).step()
    return weight.detach()


def test_length_of_the_gradient_does_not_matter():
    weight, gradient = torch.randn(3, 4), torch.randn(3, 4)
    once, larger = moved(weight, gradient), moved(weight, 1000 * gradient)
    torch.testing.assert_close(once, larger)
    assert float((once - weight).norm() / weight.norm()) == pytest.approx(0.5 * 0.001, rel=1e-4)


def test_biases_and_scales_are_neither_adapted_nor_decayed():
    weight, gradient = torch.randn(4), torch.randn(4)
    found = moved(weight, gradient, weight_decay=100.0)
    torch.testing.assert_close(found, weight - 0.5 * gradient)


def test_weights_of_0_move_by_the_gradient():
    gradient = torch.randn(3, 4)
    torch.testing.assert_close(moved(torch.zeros(3, 4), gradient), -0.5 * gradient)


def test_without_gradient_nothing_moves():
    weight = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = LARS([weight], 0.5, weight_decay=0.1)
    optimizer.step()
    assert torch.equal(weight, torch.ones(2, 2))
    assert not optimizer.state


def test_goes_on_from_a_state():
    weights = [torch.nn.Parameter(torch.ones(2, 2)) for _ in range(2)]
    optimizers = [LARS([weight], 0.5) for weight in weights]

    def step(number):
        weights[number].grad = torch.full((2, 2), 0.3)
        optimizers[number].step()

    step(0)
    weights[1].data.copy_(weights[0].data)
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    step(0)
    step(1)
    assert torch.equal(*weights)
