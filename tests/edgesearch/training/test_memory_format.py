"""Memory formats of trainings."""

import pytest
import torch
from torch import nn

from edgesearch.training.memory_format import training_format

CPU = torch.device("cpu")


def network(*, channels=16, stride=2, kernel=1):
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, 24, kernel, stride, padding=kernel // 2),
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, torch.channels_last),
        ({"channels": 8, "stride": 1}, torch.channels_last),
        ({"channels": 8, "kernel": 3}, torch.channels_last),
        ({"channels": 8}, torch.contiguous_format),
        ({"channels": 15}, torch.contiguous_format),
    ],
)
def test_only_safe_layers_are_in_channels_last(options, expected):
    assert training_format(network(**options), CPU) == expected


def test_a_gpu_keeps_its_format():
    assert training_format(network(), torch.device("cuda")) == torch.contiguous_format


@pytest.mark.parametrize("options", [{}, {"channels": 8, "stride": 1}, {"channels": 8}])
def test_gradients_are_those_of_channels_first(options):
    torch.manual_seed(0)
    model, images = network(**options), torch.randn(4, 3, 12, 12)
    found = []
    for order in (torch.contiguous_format, training_format(model, CPU)):
        model.to(memory_format=order).zero_grad()
        model(images.contiguous(memory_format=order)).square().mean().backward()
        found.append([weight.grad.clone() for weight in model.parameters()])
    for first, last in zip(*found, strict=True):
        torch.testing.assert_close(first, last, rtol=1e-4, atol=1e-6)
