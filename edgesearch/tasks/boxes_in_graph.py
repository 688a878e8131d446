"""A detector's post-processing as part of its ONNX graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgesearch.formats.onnx_export import OPSET
from edgesearch.tasks.detection import CANDIDATES, LEAST_SCORE, MOST, OVERLAP, Detections
from edgesearch.tasks.heads.anchors import OUTPUTS
from edgesearch.tasks.task import InGraph, Match

if TYPE_CHECKING:
    import onnx

ALL = {name: f"all_{name}" for name in OUTPUTS}
"""What the outputs of the network itself are called in a graph with post-processing."""
NO_BOX = -1
"""Label of the rows behind the last box of an image."""

_GRAPH = """
suppression (float[{n},{anchors},{classes}] all_scores, float[{n},{anchors},4] all_boxes)
         => (float[{n},{most},4] boxes, float[{n},{most}] scores, int64[{n},{most}] labels)
{{
  nms_row = Constant<value_ints = [0, -1]>()
  nms_few = Constant<value_ints = [{candidates}]>()
  nms_classes = Constant<value_int = {classes}>()
  nms_last = Constant<value_ints = [-1]>()
  nms_second = Constant<value_ints = [1]>()
  nms_none = Constant<value_float = 0.0>()
  nms_whole = Constant<value_float = 1.0>()
  nms_flat = Reshape(all_scores, nms_row)
  nms_values, nms_order = TopK<axis = 1>(nms_flat, nms_few)
  nms_anchors = Div(nms_order, nms_classes)
  nms_labels = Mod(nms_order, nms_classes)
  nms_anchors_at = Unsqueeze(nms_anchors, nms_last)
  nms_unbounded = GatherND<batch_dims = 1>(all_boxes, nms_anchors_at)
  nms_corners = Clip(nms_unbounded, nms_none, nms_whole)
  nms_each_class = Constant<value_ints = [{numbers}]>()
  nms_column = Unsqueeze(nms_each_class, nms_second)
  nms_labels_row = Unsqueeze(nms_labels, nms_second)
  nms_is_class = Equal(nms_labels_row, nms_column)
  nms_values_row = Unsqueeze(nms_values, nms_second)
  nms_of_class = Where(nms_is_class, nms_values_row, nms_none)
  nms_most = Constant<value_int = {most}>()
  nms_overlap = Constant<value_float = {overlap}>()
  nms_least = Constant<value_float = {least}>()
  nms_chosen = NonMaxSuppression(nms_corners, nms_of_class, nms_most, nms_overlap, nms_least)
  nms_image_and_place = Constant<value_ints = [0, 2]>()
  nms_places = Gather<axis = 1>(nms_chosen, nms_image_and_place)
  nms_kept_values = GatherND(nms_values, nms_places)
  nms_nothing = Mul(nms_values, nms_none)
  nms_kept = ScatterND(nms_nothing, nms_places, nms_kept_values)
  nms_most_row = Constant<value_ints = [{most}]>()
  scores, nms_best = TopK<axis = 1>(nms_kept, nms_most_row)
  nms_is_box = Greater(scores, nms_none)
  nms_best_labels = GatherElements<axis = 1>(nms_labels, nms_best)
  nms_no_box = Constant<value_int = {no_box}>()
  labels = Where(nms_is_box, nms_best_labels, nms_no_box)
  nms_best_at = Unsqueeze(nms_best, nms_last)
  nms_best_boxes = GatherND<batch_dims = 1>(nms_corners, nms_best_at)
  nms_is_box_at = Unsqueeze(nms_is_box, nms_last)
  boxes = Where(nms_is_box_at, nms_best_boxes, nms_none)
}}
"""


def suppression(anchors: int, classes: int, batch: int | str) -> onnx.ModelProto:
    """The post-processing alone, as a model from a network's outputs to its best boxes.

    It chooses as `Detection.predictions` does. Inputs are "all_scores" (N, A, classes) and
    "all_boxes" (N, A, 4). Outputs are those of `BoxesInGraph`, with sizes that do not depend on the
    image.

    Args:
        anchors: Boxes of an image before it.
        classes: Number of classes, without background.
        batch: Images, or the name of a dynamic batch.
    """
    import onnx
    from onnx import helper

    candidates = min(CANDIDATES, anchors * classes)
    text = _GRAPH.format(
        n=batch,
        anchors=anchors,
        classes=classes,
        candidates=candidates,
        most=min(MOST, candidates),
        numbers=", ".join(map(str, range(classes))),
        overlap=f"{OVERLAP:.9f}",
        least=f"{LEAST_SCORE:.9f}",
        no_box=NO_BOX,
    )
    graph = onnx.parser.parse_graph(text)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])


class BoxesInGraph(InGraph):
    """Outputs are boxes (N, M, 4) in shares of the input, scores (N, M), best first, and labels.

    Labels (N, M) are int64. Rows behind the last box of an image have the score 0, the label -1
    and a box of zeros.
    """

    stem = "detector"
    output_names = ("boxes", "scores", "labels")

    def alone(self, shapes: Mapping[str, Sequence[int | str]]) -> onnx.ModelProto:
        """See `InGraph`."""
        batch, anchors, classes = shapes[OUTPUTS[0]]
        return suppression(int(anchors), int(classes), batch)

    def joined(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """See `InGraph`."""
        import onnx

        shapes = {
            output.name: [size.dim_value or size.dim_param for size in _sizes(output)]
            for output in model.graph.output
        }
        joined, further = onnx.ModelProto(), self.alone(shapes).graph
        joined.CopyFrom(model)
        for node in joined.graph.node:
            node.input[:] = [ALL.get(name, name) for name in node.input]
            node.output[:] = [ALL.get(name, name) for name in node.output]
        joined.graph.node.extend(further.node)
        del joined.graph.output[:]
        joined.graph.output.extend(further.output)
        del joined.graph.value_info[:]  # of names that no longer are
        return joined

    def predictions(self, outputs: Sequence[np.ndarray]) -> list[Detections]:
        """See `InGraph`."""
        found = []
        for corners, scores, labels in zip(*outputs, strict=True):
            count = int((labels != NO_BOX).sum())
            found.append(Detections(corners[:count], scores[:count], labels[:count]))
        return found

    def match(
        self, expected: Sequence[Detections], found: Sequence[Detections], tolerance: float
    ) -> Match:
        """See `InGraph`; a box is the same if class, score and corners are."""
        count, same, largest = 0, 0, 0.0
        for wanted, given in zip(expected, found, strict=True):
            count += max(len(wanted.labels), len(given.labels))
            if not len(given.labels):
                continue
            for corners, score, label in zip(
                wanted.corners, wanted.scores, wanted.labels, strict=True
            ):
                apart = np.maximum(
                    np.abs(given.corners - corners).max(axis=1), np.abs(given.scores - score)
                )
                nearest = float(np.where(given.labels == label, apart, np.inf).min())
                if nearest <= tolerance:
                    same, largest = same + 1, max(largest, nearest)
        return Match(count, same, largest)


def _sizes(output: onnx.ValueInfoProto) -> Sequence[onnx.TensorShapeProto.Dimension]:
    return output.type.tensor_type.shape.dim
