"""What holds for every method of pre-training."""

import random

import pytest
import torch

from edgesearch.pretrain.encoder import Encoder
from edgesearch.pretrain.method import make_method
from edgesearch.pretrain.recipes import RECIPES
from edgesearch.pretrain.sandwich import sandwich_step
from edgesearch.pretrain.settings import AugmentationSettings, PretrainSettings

pytestmark = pytest.mark.parametrize("name", RECIPES)

# As small as possible.
SMALL = {"projector_hidden_dim": 2, "projector_dim": 2}


@pytest.fixture
def two_views(name, two_views, embeddings_of):
    """Two views, or a view and a teacher's embeddings."""
    if name != "distillation":
        return two_views
    return lambda count=4, seed=0: (two_views(count, seed)[0], embeddings_of(count, 6, seed=seed))


def tensors_of(targets):
    if isinstance(targets, torch.Tensor):
        return [targets]
    return [tensor for part in targets or () for tensor in tensors_of(part)]


def trained(method):
    return {name: p for name, p in method.named_parameters() if p.requires_grad}


class TestMadeAlike:
    def test_configuration_hands_the_options_over(self, name, pinhole):
        assert RECIPES[name].training.keys() == RECIPES["moco_v2"].training.keys()
        teacher = {"onnx": "teacher.onnx"} if name == "distillation" else None
        options = PretrainSettings(method=name, projector_dim=5, teacher=teacher).method_options()
        assert options == {**RECIPES[name].options, "projector_dim": 5}

    def test_options_have_no_second_default(self, name, pinhole):
        for option in RECIPES[name].options:
            given = {**RECIPES[name].options, "seed": 0}
            del given[option]
            with pytest.raises(TypeError, match=f"required keyword-only argument: '{option}'"):
                type(make_method(name, pinhole, **SMALL))(pinhole, **given)

    def test_what_is_trained_and_what_is_not(self, name, new_method):
        method = new_method(name)
        assert isinstance(method.query, Encoder)
        assert all(p.requires_grad for p in method.query.parameters())
        if method.key is not None:
            assert not any(p.requires_grad for p in method.key.parameters())
            query, key = method.query.state_dict(), method.key.state_dict()
            assert query.keys() == key.keys()
            assert not {id(p) for p in method.query.parameters()} & {
                id(p) for p in method.key.parameters()
            }

    def test_start_depends_on_the_seed_alone(self, name, new_method):
        state = torch.get_rng_state()
        once, again, other = (new_method(name, seed=seed).state_dict() for seed in (1, 1, 2))
        assert torch.equal(torch.get_rng_state(), state)
        assert all(torch.equal(once[key], again[key]) for key in once)
        assert not torch.equal(*(s["query.projector.fc2.weight"] for s in (once, other)))

    def test_backbone_and_projector_start_alike_in_all_methods(self, name, new_method):
        first, own = (new_method(n).query.state_dict() for n in ("moco_v2", name))
        assert all(torch.equal(own[key], tensor) for key, tensor in first.items())

    def test_two_recipes_that_keep_crops_and_mirroring(self, name, new_method):
        asked = AugmentationSettings(crop_scale=(0.3, 0.9), flip_probability=0.1)
        recipes = new_method(name).views(asked)
        assert len(recipes) == 2
        for recipe in recipes:
            assert (recipe.crop_scale, recipe.flip_probability) == ((0.3, 0.9), 0.1)


class TestPass:
    def test_embeddings_are_the_projected_first_views(self, name, new_method, two_views, pinhole):
        method, views = new_method(name).eval(), two_views()
        targets = method.targets(views)
        for architecture in (pinhole.largest, pinhole.smallest):
            method.activate(architecture)
            loss, embeddings, _ = method.loss(views, targets)
            assert loss.shape == ()
            expected = method.query(method.query.resized(views[0]))
            assert expected.shape == (4, 6)
            torch.testing.assert_close(embeddings, expected)
            torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(4))

    def test_any_architecture_can_be_trained(self, name, new_method, two_views, pinhole):
        method, views = new_method(name), two_views()
        rng = random.Random(0)
        losses = set()
        for _ in range(5):
            method.activate(pinhole.sample(rng))
            loss = method.loss(views, method.targets(views)).value
            assert loss.isfinite()
            losses.add(loss.item())
        assert len(losses) == 5

    def test_targets_are_those_of_the_largest_network(self, name, new_method, two_views, pinhole):
        method, views = new_method(name).eval(), two_views()
        before = tensors_of(method.targets(views))
        method.activate(pinhole.smallest)
        after = tensors_of(method.targets(views))
        assert all(map(torch.equal, before, after))
        assert method.key is None or method.key.supernet.active == pinhole.largest

    def test_gradients_reach_the_query_side_alone(self, name, new_method, two_views):
        method, views = new_method(name), two_views()
        targets = method.targets(views)
        assert not any(tensor.requires_grad for tensor in tensors_of(targets))
        method.loss(views, targets).value.backward()
        for parameter, weight in method.named_parameters():
            assert (weight.grad is not None) == weight.requires_grad, parameter
        assert all(weight.grad.any() for weight in trained(method).values() if weight.ndim > 1)

    def test_order_of_the_batch_does_not_matter(self, name, new_method, two_views):
        method, views = new_method(name), two_views(6)
        order = torch.tensor([3, 1, 5, 0, 2, 4])
        turned = tuple(view[order] for view in views)
        losses = [method.loss(v, method.targets(v)).value for v in (views, turned)]
        torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-5)
        mixed = views[0], views[1][order]
        assert not torch.isclose(losses[0], method.loss(mixed, method.targets(mixed)).value)


class TestStep:
    def test_key_encoder_ends_between_where_it_was_and_the_new_query(
        self, name, new_method, two_views, pinhole
    ):
        method = new_method(name)
        before = {} if method.key is None else dict(new_method(name).key.named_parameters())
        optimizer = torch.optim.SGD(trained(method).values(), 0.5)
        sandwich_step(method, two_views(), [pinhole.largest, pinhole.smallest], optimizer)
        queries = dict(method.query.named_parameters())
        moved = False
        for parameter, former in before.items():
            key = method.key.get_parameter(parameter)
            share = 1 - method.ema_momentum
            expected = (1 - share) * former + share * queries[parameter]
            torch.testing.assert_close(key, expected, rtol=1e-5, atol=1e-6)
            moved = moved or not torch.equal(key, former)
        assert moved == (method.key is not None)

    def test_state_is_all_that_a_method_remembers(self, name, new_method, two_views, pinhole):
        method, other = new_method(name), new_method(name, seed=5)
        optimizer = torch.optim.SGD(trained(method).values(), 0.5)
        sandwich_step(method, two_views(), [pinhole.largest, pinhole.smallest], optimizer)
        other.load_state_dict(method.state_dict())
        for each in (method, other):
            each.activate(pinhole.largest)
        views = two_views(seed=1)
        one, two = (each.loss(views, each.targets(views)).value for each in (method, other))
        assert torch.equal(one, two)
