"""Normalisation statistics, against a straightforward computation."""

import pytest
import torch
from torch import nn

from edgesearch.families import load_space
from edgesearch.families.resnet.network import ResNet
from edgesearch.supernet.calibrate import recalibrate

SPACE = load_space("resnet_tiny")


def images_of(count):
    generator = torch.Generator().manual_seed(count)
    return 0.5 + 1.5 * torch.randn(count, 3, 32, 32, generator=generator)


def network():
    torch.manual_seed(0)
    net = ResNet(SPACE.blocks(SPACE.smallest))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # not 0 in any block: what is inside of it counts
    return net.eval()


def statistics(net):
    return {n: b.clone() for n, b in net.named_buffers() if not n.endswith("tracked")}


def straightforward(net, images, batch_size):
    """For every normalisation the mean over batches of the batch's mean and unbiased variance."""
    seen = {}
    hooks = [
        module.register_forward_pre_hook(
            lambda _, inputs, name=name: seen.setdefault(name, []).append(inputs[0])
        )
        for name, module in net.named_modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    net.train()
    for start in range(0, len(images), batch_size):
        net(images[start : start + batch_size])
    for hook in hooks:
        hook.remove()
    expected = {}
    for name, batches in seen.items():
        expected[f"{name}.running_mean"] = torch.stack([b.mean((0, 2, 3)) for b in batches]).mean(0)
        expected[f"{name}.running_var"] = torch.stack([b.var((0, 2, 3)) for b in batches]).mean(0)
    return expected


@pytest.mark.parametrize(
    ("count", "counted"), [(96, 96), (80, 80), (79, 64), (7, 7)], ids=["3", "2½", "2", "part"]
)
def test_statistics(count, counted):
    """Batches of 32; a last one of fewer than 16 is left out unless it is the only one."""
    images = images_of(count)
    net = network()
    recalibrate(net, images, batch_size=32)
    torch.testing.assert_close(statistics(net), straightforward(network(), images[:counted], 32))


def test_former_statistics_leave_no_trace():
    fresh, used = network(), network()
    for buffer in statistics(used):
        used.get_buffer(buffer).fill_(7.0)
    for net in (fresh, used):
        recalibrate(net, images_of(32))
    assert all(map(torch.equal, statistics(fresh).values(), statistics(used).values()))


@pytest.mark.parametrize("training", [True, False])
def test_mode_and_momentum_are_left_as_they_were(training):
    net = network().train(training)
    net.bn1.momentum = 0.3
    recalibrate(net, images_of(4))
    assert {module.training for module in net.modules()} == {training}
    assert [m.momentum for m in net.modules() if isinstance(m, nn.BatchNorm2d)][:2] == [0.3, 0.1]


def test_weights_are_left_alone():
    net = network()
    before = [p.clone() for p in net.parameters()]
    recalibrate(net, images_of(4))
    assert all(map(torch.equal, before, net.parameters()))
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_projector_is_calibrated_too():
    norm = nn.BatchNorm1d(4)
    features = torch.randn(10, 4)
    recalibrate(nn.Sequential(norm), features)
    torch.testing.assert_close(norm.running_mean, features.mean(0))
    torch.testing.assert_close(norm.running_var, features.var(0))


def test_a_network_without_normalisation_is_not_run():
    def fail(*_):
        raise AssertionError("was run")

    net = nn.Linear(2, 2)
    net.register_forward_pre_hook(fail)
    recalibrate(net, torch.zeros(1, 2))


def test_a_failure_leaves_mode_and_momentum_as_they_were():
    net = network()
    with pytest.raises(RuntimeError):
        recalibrate(net, torch.zeros(4, 7, 8, 8))
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not net.training
    assert {norm.momentum for norm in norms} == {0.1}
