"""How a batch is cut, grouped and encoded, in one process."""

import pytest
import torch

from edgesearch.errors import TrainingError
from edgesearch.pretrain.byol import cosine_distance
from edgesearch.pretrain.key_queue import queues_of
from edgesearch.pretrain.method import SubnetLoss
from edgesearch.pretrain.passes import Passes
from edgesearch.pretrain.recipes import RECIPES
from edgesearch.pretrain.sandwich import sandwich_architectures, sandwich_step
from edgesearch.pretrain.simclr import SimCLR
from edgesearch.processes import distributed
from edgesearch.supernet.dynamic_ops import DynamicBatchNorm2d


def rows(count=8):
    return torch.arange(float(count)).view(count, 1)


class Noted:
    """An encoder that notes what it is given."""

    def __init__(self):
        self.given = []

    def __call__(self, *views):
        self.given.append(views)
        return views[0] * 10


class TestEncode:
    def test_groups_of_keys_are_others_and_their_order_is_restored(self, new_method):
        encoder, passes = Noted(), Passes(new_method("moco_v2"), 8, group_size=2)
        assert torch.equal(passes.encode(encoder, rows()), rows() * 10)
        ((given,),) = encoder.given
        assert sorted(given.flatten().tolist()) == list(range(8))
        assert not torch.equal(given, rows())
        passes.step = 1
        passes.encode(encoder, rows())
        assert not torch.equal(encoder.given[1][0], given)
        again = Passes(new_method("moco_v2"), 8, group_size=4)
        again.encode(encoder, rows())
        assert torch.equal(encoder.given[2][0], given)

    @pytest.mark.parametrize("options", [{}, {"group_size": 8}])
    def test_one_group_is_not_shuffled(self, new_method, options):
        encoder, passes = Noted(), Passes(new_method("moco_v2"), 8, **options)
        passes.encode(encoder, rows())
        assert torch.equal(encoder.given[0][0], rows())

    def test_not_where_nobody_wants_it(self, new_method):
        encoder, passes = Noted(), Passes(new_method("byol"), 8, group_size=2)
        passes.encode(encoder, rows(), shuffled=False)
        assert torch.equal(encoder.given[0][0], rows())

    def test_in_parts(self, new_method):
        encoder, passes = Noted(), Passes(new_method("moco_v2"), 8, accumulation=4)
        found = passes.encode(encoder, rows(), rows() + 0.5)
        assert torch.equal(found, rows() * 10)
        assert [[len(view) for view in views] for views in encoder.given] == [[2, 2]] * 4
        assert all(torch.equal(first + 0.5, second) for first, second in encoder.given)

    def test_cuts_views_and_targets_alike(self, new_method):
        passes = Passes(new_method("moco_v2"), 8, accumulation=2)
        (first, second) = passes.cut((rows(), rows() + 1), (rows() + 2, None, (rows() + 3,)))
        views, (targets, nothing, (nested,)) = second
        assert nothing is None
        for number, part in enumerate((*views, targets, nested)):
            assert torch.equal(part, rows()[4:] + number)
        assert torch.equal(first[0][0], rows()[:4])


class TestNormalisations:
    @pytest.mark.parametrize("name", RECIPES)
    def test_all_of_a_method_go_by_the_groups(self, new_method, name):
        method = new_method(name)
        Passes(method, 8, group_size=4)
        norms = [m for m in method.modules() if "BatchNorm" in type(m).__name__]
        assert any(isinstance(norm, DynamicBatchNorm2d) for norm in norms)
        assert all(norm.groups.size == 4 for norm in norms)
        Passes(method, 8)
        assert all(norm.groups is None for norm in norms)

    def test_a_query_cannot_be_told_from_its_key_by_its_group(self, new_method, two_views, pinhole):
        # The same images, seen twice: unshuffled, key and query are the same.
        method, views = new_method("moco_v2"), (two_views(8)[0],) * 2
        method.activate(pinhole.largest)
        passes = Passes(method, 8, group_size=2)
        keys = method.targets(views, passes.encode)
        queries = method.loss(views, keys).embeddings
        assert not torch.allclose(queries, keys, atol=1e-3)
        passes.several_groups = False
        keys = method.targets(views, passes.encode)
        torch.testing.assert_close(method.loss(views, keys).embeddings, keys)


UNTAUGHT = [name for name, recipe in RECIPES.items() if not recipe.taught]
HEAD = {**RECIPES["simclr"].options, "projector_dim": 6}


class Keyless(SimCLR):
    """No key encoder, and no image is compared with another one."""

    batch_is_negatives = False

    def loss(self, views, targets):
        (features, first), (_, second) = (self.query.encoded(view) for view in views)
        return SubnetLoss(cosine_distance(first, second), first, features)


class TestAccumulation:
    @pytest.mark.parametrize("name", [name for name in UNTAUGHT if name != "simclr"])
    def test_gives_the_gradients_of_one_pass(self, new_method, two_views, pinhole, name):
        queue = {"queue_size": 16} if "queue_size" in RECIPES[name].options else {}
        self.check(lambda: new_method(name, **queue), two_views, pinhole)

    def test_without_a_key_encoder_all_parts_are_distilled(self, two_views, pinhole):
        self.check(lambda: Keyless(pinhole, seed=0, **HEAD).train(), two_views, pinhole)

    def check(self, new, two_views, pinhole):
        found = []
        for accumulation in (1, 2):
            method = new()
            passes = Passes(method, 8, group_size=2, accumulation=accumulation)
            optimizer = torch.optim.SGD(method.query.parameters(), 0.0)
            architectures = sandwich_architectures(pinhole, 1, 0, 0)
            options = {"distill": 0.5, "weights": [1.0, 0.5, 2.0], "passes": passes}
            result = sandwich_step(method, two_views(8), architectures, optimizer, **options)
            gradients = {n: p.grad for n, p in method.named_parameters() if p.requires_grad}
            figures = torch.tensor([*result.losses, result.spread])
            queues = {f"queue {n}": queue.keys for n, queue in enumerate(queues_of(method))}
            found.append({**gradients, **queues, "figures": figures})
        for key, value in found[0].items():
            torch.testing.assert_close(found[1][key], value, rtol=1e-3, atol=1e-5, msg=key)


class TestRefusals:
    def test_a_pass_of_one_image(self, new_method):
        message = r"at least 2 images in a pass, .*; found: 1 \(pretrain.batch_size 8, 1 proc"
        with pytest.raises(TrainingError, match=message):
            Passes(new_method("moco_v2"), 8, accumulation=8)

    def test_accumulation_where_the_batch_is_the_negatives(self, new_method):
        with pytest.raises(TrainingError, match="accumulation 1 for SimCLR, whose negatives are"):
            Passes(new_method("simclr"), 8, accumulation=2)

    @pytest.mark.parametrize(
        ("batch_size", "queue_size", "options", "better", "queue"),
        [
            (10, 64, {}, 8, None),
            (2, 64, {}, 8, None),  # two images for each process
            (15, 48, {}, 16, None),
            (15, 72, {}, 12, None),  # the nearest would not divide the queue
            (15, 64, {"group_size": 8}, 32, None),
            (3, 64, {"group_size": 8}, 32, None),
            (62, 245, {}, 60, 240),
            (64, 256, {"accumulation": 3}, 60, 240),
            (63, None, {}, 64, None),
        ],
    )
    def test_batch_that_is_not_divided(
        self, new_method, monkeypatch, batch_size, queue_size, options, better, queue
    ):
        monkeypatch.setattr(distributed, "world_size", lambda: 4)

        def method(queue_size):
            if queue_size is None:
                return new_method("byol")
            return new_method("moco_v2", queue_size=queue_size)

        also = "" if queue is None else f" and pretrain.queue_size={queue}"
        expected = (
            f"batch_size that 4 processes and pretrain.accumulation . divide; found: "
            f"pretrain.batch_size {batch_size}.*Set pretrain.batch_size={better}{also}, or another"
        )
        with pytest.raises(TrainingError, match=f"(?s){expected}"):
            Passes(method(queue_size), batch_size, **options)
        Passes(method(queue or queue_size), better, **options)
        assert (queue or queue_size or better) % better == 0

    def test_groups_across_passes(self, new_method, monkeypatch):
        monkeypatch.setattr(distributed, "world_size", lambda: 2)
        expected = (
            r"bn_group_size that divides the 6 images of a pass \(pretrain.batch_size 24, 2 "
            r"processes, pretrain.accumulation 2\); found: pretrain.bn_group_size 4.*to one of "
            "2, 3, 6"
        )
        with pytest.raises(TrainingError, match=f"(?s){expected}"):
            Passes(new_method("moco_v2"), 24, group_size=4, accumulation=2)
