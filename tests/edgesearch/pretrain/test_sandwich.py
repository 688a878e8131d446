"""One step over several subnets, taken apart."""

import copy

import pytest
import torch
import torch.nn.functional as F

from edgesearch.families import load_space
from edgesearch.pretrain.method import make_method
from edgesearch.pretrain.sandwich import sandwich_architectures, sandwich_step, spread_of

SPACE = load_space("resnet_tiny", in_channels=1)
ARCHITECTURES = sandwich_architectures(SPACE, 1, seed=0, step=0)
LR = 0.05


@pytest.fixture
def method():
    torch.manual_seed(0)
    method = make_method(
        "moco_v2", SPACE, queue_size=16, projector_hidden_dim=12, projector_dim=6, ema_momentum=0.9
    )
    for name, parameter in method.named_parameters():
        if name.endswith("bn2.weight"):
            torch.nn.init.ones_(parameter)  # not 0 in any block: gradients reach everything
    return method.train()


@pytest.fixture
def views():
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(4, 1, 32, 32, generator=generator) for _ in range(2))


def sgd(method):
    return torch.optim.SGD(method.query.parameters(), LR)


def snapshot(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def parameters_of(module):
    return {name: tensor.detach().clone() for name, tensor in module.named_parameters()}


class TestArchitectures:
    def test_ends_and_random_ones(self):
        found = sandwich_architectures(SPACE, 3, seed=0, step=7)
        assert found[:2] == [SPACE.largest, SPACE.smallest]
        assert len(found) == 5
        assert all(architecture in SPACE for architecture in found)

    def test_depend_on_seed_and_step_only(self):
        drawn = {
            (seed, step): sandwich_architectures(SPACE, 8, seed, step)[2:]
            for seed in (0, 1)
            for step in (0, 1)
        }
        assert len(set(map(tuple, drawn.values()))) == 4
        assert drawn[1, 1] == sandwich_architectures(SPACE, 8, 1, 1)[2:]

    def test_none_random(self):
        assert sandwich_architectures(SPACE, 0, 0, 0) == [SPACE.largest, SPACE.smallest]


class TestStep:
    def test_keys_are_encoded_once_and_each_subnet_once(self, method, views):
        passes, steps = [], []
        method.key.register_forward_hook(lambda *_: passes.append("key"))
        method.query.supernet.register_forward_hook(
            lambda *_: passes.append(method.query.supernet.active)
        )
        optimizer = sgd(method)
        optimizer.register_step_post_hook(lambda *_: steps.append(len(passes)))
        sandwich_step(method, views, ARCHITECTURES, optimizer)
        assert passes == ["key", *ARCHITECTURES]
        assert steps == [4]

    def test_gradients_are_the_sum_of_separate_passes(self, method, views):
        alone = copy.deepcopy(method)
        targets = alone.targets(views)
        total = {name: torch.zeros_like(p) for name, p in alone.query.named_parameters()}
        expected_losses = []
        for architecture in ARCHITECTURES:
            alone.zero_grad(set_to_none=True)
            alone.activate(architecture)
            loss = alone.loss(views, targets).value
            loss.backward()
            expected_losses.append(loss.item())
            for name, parameter in alone.query.named_parameters():
                if parameter.grad is not None:
                    total[name] += parameter.grad
        before = parameters_of(method.query)
        losses = sandwich_step(method, views, ARCHITECTURES, sgd(method)).losses
        assert losses == pytest.approx(expected_losses, rel=1e-6)
        for name, parameter in method.query.named_parameters():
            assert total[name].any(), name
            torch.testing.assert_close(parameter.grad, total[name], rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(parameter, before[name] - LR * parameter.grad)

    def test_former_gradients_do_not_count(self, method, views):
        other = copy.deepcopy(method)
        for parameter in method.query.parameters():
            parameter.grad = torch.ones_like(parameter)
        for each in (method, other):
            sandwich_step(each, views, ARCHITECTURES, sgd(each))
        assert all(map(torch.equal, method.query.parameters(), other.query.parameters()))

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_nothing_moves_if_a_loss_is_not_finite(self, method, views, bad):
        kept = [parameters_of(method.query), parameters_of(method.key)]
        queue = method.queue.keys.clone()
        views[0][0, 0, 0, 0] = bad
        optimizer = torch.optim.SGD(method.query.parameters(), LR, momentum=0.9)
        result = sandwich_step(method, views, ARCHITECTURES, optimizer)
        assert len(result.losses) == 3
        assert not result.finite
        for encoder, former in zip((method.query, method.key), kept, strict=True):
            assert all(torch.equal(p, former[name]) for name, p in encoder.named_parameters())
        assert torch.equal(method.queue.keys, queue)
        assert int(method.queue.position) == 0
        assert not optimizer.state


def gradients(method, views, architectures=ARCHITECTURES, **options):
    """The gradients of a step, and what it brought; the method is left as it was."""
    method = copy.deepcopy(method)
    result = sandwich_step(method, views, architectures, sgd(method), **options)
    trained = method.query.named_parameters()
    return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in trained}, result


class TestWeights:
    def test_multiply_each_gradient_and_leave_the_losses(self, method, views):
        weights = [1.0, 0.5, 2.0]
        _, plain = gradients(method, views)
        found, weighted = gradients(method, views, weights=weights)
        assert weighted.losses == plain.losses
        alone = [gradients(method, views, [a])[0] for a in ARCHITECTURES]
        for name, gradient in found.items():
            expected = sum(w * part[name] for w, part in zip(weights, alone, strict=True))
            torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-5)


class TestDistillation:
    def by_hand(self, method, views, teacher):
        """Gradients of the distances alone, of all but the largest network."""
        method = copy.deepcopy(method)
        targets = method.targets(views)
        total = 0.0
        for number, architecture in enumerate(ARCHITECTURES):
            method.activate(architecture)
            embeddings = method.loss(views, targets).embeddings
            if number == 0:
                teacher = embeddings.detach() if teacher is None else teacher
                continue
            total = total + (2 - 2 * (embeddings * teacher).sum(dim=1)).mean()
        total.backward()
        return {name: p.grad for name, p in method.query.named_parameters()}

    @pytest.mark.parametrize("name", ["moco_v2", "simclr"])
    def test_adds_the_distance_from_the_key_encoder(self, method, views, name):
        if name == "simclr":
            torch.manual_seed(0)
            method = make_method("simclr", SPACE, projector_hidden_dim=12, projector_dim=6).train()
            teacher = None  # the largest network of the step itself
        else:
            with torch.no_grad():
                for weight in method.key.parameters():  # so that it is not the query encoder
                    weight.mul_(1 + 0.3 * torch.randn_like(weight))
            teacher = copy.deepcopy(method).key(views[0])
        plain, without = gradients(method, views)
        distilled, result = gradients(method, views, distill=0.7)
        assert result.losses == without.losses
        expected = self.by_hand(method, views, teacher)
        for name, gradient in distilled.items():
            own = plain[name] + (0 if expected[name] is None else 0.7 * expected[name])
            torch.testing.assert_close(gradient, own, rtol=1e-3, atol=1e-5)


class TestSpread:
    def test_of_one_point_is_0(self):
        assert float(spread_of(torch.ones(5, 4) / 2)) == 0

    def test_of_all_directions_is_1(self):
        generator = torch.Generator().manual_seed(0)
        embeddings = F.normalize(torch.randn(4000, 32, generator=generator), dim=1)
        assert float(spread_of(embeddings)) == pytest.approx(1, abs=0.01)

    def test_of_a_step_is_that_of_the_largest_network(self, method, views):
        method.activate(SPACE.largest)
        expected = spread_of(copy.deepcopy(method).query(views[0]))
        result = sandwich_step(method, views, ARCHITECTURES, sgd(method))
        assert result.spread == pytest.approx(expected.item(), rel=1e-5)
