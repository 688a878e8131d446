"""Labels in files: lists, boxes and label maps, and what is wrong with them."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from edgesearch.data.label_maps import IGNORED
from edgesearch.data.open_images import open_images
from edgesearch.data.settings import DataSettings
from edgesearch.errors import DataError


def picture(path, width=40, height=20):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (90, 120, 30)).save(path)


def opened(root, labels, **options):
    return open_images(DataSettings(root=root, labels=labels, **options), 3)


def told(splits):
    return {each.reason: (each.count, each.first) for each in splits.left_out}


def coco(root, split, annotations, images=((7, "a.jpg"), (9, "b.jpg")), categories=None):
    values = {
        "images": [{"id": i, "file_name": n, "width": 40, "height": 20} for i, n in images],
        "annotations": [{"id": n, **each} for n, each in enumerate(annotations)],
        "categories": categories or [{"id": 3, "name": "cat"}, {"id": 8, "name": "dog"}],
    }
    path = root / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values), "utf-8")


def object_of(image=7, category=3, box=(10, 5, 20, 10), **more):
    return {"image_id": image, "category_id": category, "bbox": list(box), **more}


class TestCoco:
    @pytest.fixture
    def root(self, tmp_path):
        picture(tmp_path / "images" / "a.jpg")
        picture(tmp_path / "images" / "b.jpg")
        return tmp_path

    def test_a_file_beside_the_images_of_each_split(self, tmp_path):
        for split in ("train", "valid"):
            coco(tmp_path, split, [object_of(), object_of(9, 8)])
            for name in ("a.jpg", "b.jpg"):
                picture(tmp_path / split / name)
            made = tmp_path / f"annotations/instances_{split}.json"
            made.rename(tmp_path / split / "_annotations.coco.json")
        splits = opened(tmp_path, "coco")
        assert (len(splits.train), len(splits.test), splits.test_from) == (2, 2, "in valid")

    def test_captions_beside_the_boxes_are_not_read(self, root):
        coco(root, "train2017", [object_of(), object_of(9, 8)])
        (root / "annotations/captions_train2017.json").write_text('{"images": []}', "utf-8")
        assert opened(root, "coco").train.class_names == ("cat", "dog")

    def test_boxes_are_shares_and_ids_are_numbered_anew(self, root):
        coco(root, "train2017", [object_of(), object_of(9, 8, (0, 0, 40, 20))])
        coco(root, "val2017", [object_of(category=8)])
        splits = opened(root, "coco")
        assert splits.train.class_names == ("cat", "dog")
        first, second = splits.train.targets
        assert first.corners.tolist() == [[0.25, 0.25, 0.75, 0.75]]
        assert (first.labels.tolist(), second.labels.tolist()) == ([0], [1])
        assert splits.test.targets[0].labels.tolist() == [1]
        assert any("not contiguous" in reason for reason in told(splits))

    def test_what_is_dropped_or_counts_otherwise_is_told(self, root):
        beyond, empty, outside = (30, 5, 20, 10), (10, 5, 0, 4), (50, 5, 5, 5)
        boxes = [object_of(box=box) for box in (beyond, empty, outside)]
        coco(root, "train", [*boxes, object_of(iscrowd=1), {**object_of(), "bbox": []}])
        splits = opened(root, "coco", holdout=0)
        assert splits.train.targets[0].corners.tolist() == [
            [0.75, 0.25, 1.0, 0.75],
            [0.25, 0.25, 0.75, 0.75],
        ]
        assert splits.train.targets[0].ignored.tolist() == [False, True]
        found = {reason.split(",")[0]: count for reason, count in told(splits).items()}
        assert found["boxes outside of their image or without area"] == (2, "a.jpg")
        assert found["boxes that reach beyond their image"] == (1, "a.jpg")
        assert found["crowd regions"] == (1, "a.jpg")
        assert found["annotations without a box"] == (1, "a.jpg")
        assert found["images without any annotation"] == (1, "b.jpg")

    @pytest.mark.parametrize(
        ("annotations", "options", "says"),
        [
            ([object_of(image=99)], {}, "image 99, which is not listed"),
            ([object_of(category=5)], {}, "none for 5"),
            ([object_of()], {"classes": ["dog"]}, "classes of data.classes .dog.*'cat'"),
        ],
    )
    def test_contradictions_are_refused(self, root, annotations, options, says):
        coco(root, "train", annotations)
        with pytest.raises(DataError, match=says):
            opened(root, "coco", **options)

    def test_a_missing_image_is_named(self, root):
        coco(root, "train", [object_of()], images=((7, "gone.jpg"),))
        with pytest.raises(DataError, match="the image gone.jpg"):
            opened(root, "coco")

    @pytest.mark.parametrize(
        ("image", "category"),
        [(7.0, 3.0), ("7", "3"), (10**16, 10**15)],
        ids=["1.0", "text", "huge"],
    )
    def test_ids_as_tools_write_them(self, root, image, category):
        """With a mark at the beginning of the file, as editors on Windows write it."""
        categories = [{"id": category, "name": "cat"}]
        coco(root, "train", [object_of(image, category)], [(image, "a.jpg")], categories)
        path = root / "annotations/instances_train.json"
        path.write_text(path.read_text("utf-8"), "utf-8-sig")
        splits = opened(root, "coco", holdout=0)
        assert splits.train.class_names == ("cat",)
        assert splits.train.targets[0].labels.tolist() == [0]

    @pytest.mark.parametrize(
        ("part", "change", "says"),
        [
            ("categories", {"id": "cat"}, "'cat' as id in categories"),
            ("annotations", {"category_id": 3.5}, "3.5 as category_id in annotations"),
            ("annotations", {"bbox": ["x", 1, 2, 3]}, "'x' as bbox in annotations"),
            ("images", {"width": 0}, "no size of the image a.jpg"),
            ("images", {"height": None}, "None as height in images"),
        ],
    )
    def test_values_that_are_no_numbers_are_refused(self, root, part, change, says):
        coco(root, "train", [object_of()])
        path = root / "annotations/instances_train.json"
        values = json.loads(path.read_text("utf-8"))
        values[part][0].update(change)
        path.write_text(json.dumps(values), "utf-8")
        with pytest.raises(DataError, match=f"a JSON file with COCO's .*instances_train.*{says}"):
            opened(root, "coco")


def voc(root, stem, *objects):
    parts = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{box[0]}</xmin>"
        f"<ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
        for name, difficult, box in objects
    )
    path = root / "Annotations" / f"{stem}.xml"
    path.parent.mkdir(exist_ok=True)
    size = "<size><width>40</width><height>20</height></size>"
    path.write_text(f"<annotation>{size}{parts}</annotation>", "utf-8")


class TestVoc:
    @pytest.fixture
    def root(self, tmp_path):
        for stem in "abc":
            picture(tmp_path / "JPEGImages" / f"{stem}.jpg")
        lists = tmp_path / "ImageSets" / "Main"
        lists.mkdir(parents=True)
        (lists / "train.txt").write_text("a\n")
        (lists / "val.txt").write_text("b\n")
        return tmp_path

    def test_pixels_count_from_one_and_difficult_objects_are_ignored(self, root):
        voc(root, "a", ("cat", 0, (1, 1, 40, 20)), ("dog", 1, (11, 6, 30, 15)))
        voc(root, "b")
        voc(root, "c", ("dog", 0, (1, 1, 9, 9)))
        splits = opened(root, "voc")
        (target,) = splits.train.targets
        assert target.corners.tolist() == [[0.0, 0.0, 1.0, 1.0], [0.25, 0.25, 0.75, 0.75]]
        assert target.ignored.tolist() == [False, True]
        reasons = " ".join(told(splits))
        assert "difficult" in reasons and "background" in reasons and "in no list" in reasons

    def test_files_beside_images_of_the_same_name_in_each_split(self, tmp_path):
        for split, wide in (("train", 40), ("valid", 20)):
            picture(tmp_path / split / "a.jpg")
            voc(tmp_path, "a", ("cat", 0, (1, 1, wide, 20)))
            (tmp_path / "Annotations/a.xml").rename(tmp_path / split / "a.xml")
        (tmp_path / "Annotations").rmdir()
        splits = opened(tmp_path, "voc")
        assert splits.train.targets[0].corners.tolist() == [[0.0, 0.0, 1.0, 1.0]]
        assert splits.test.targets[0].corners.tolist() == [[0.0, 0.0, 0.5, 1.0]]
        assert splits.test.items[0].path.parent.name == "valid"

    def test_a_corner_at_zero_means_that_all_count_from_zero(self, root):
        voc(root, "a", ("cat", 0, (0, 0, 20, 10)))
        voc(root, "b", ("cat", 0, (10, 5, 20, 10)))
        splits = opened(root, "voc")
        assert splits.test.targets[0].corners.tolist() == [[0.25, 0.25, 0.5, 0.5]]
        assert any("from 0" in reason for reason in told(splits))

    def test_corners_that_are_no_numbers_are_refused(self, root):
        voc(root, "a", ("cat", 0, ("x", 0, 20, 10)))
        with pytest.raises(DataError, match="numbers for xmin, ymin, xmax and ymax .*'x'"):
            opened(root, "voc")

    def test_lists_of_editors_on_windows(self, root):
        voc(root, "a", ("cat", 0, (1, 1, 9, 9)))
        voc(root, "b")
        path = root / "ImageSets/Main/train.txt"
        path.write_text("a  1\r\n", "utf-8-sig")
        assert len(opened(root, "voc").train) == 1
        path.write_bytes(b"caf\xe9\n")
        with pytest.raises(DataError, match="a text file in UTF-8 at .*train.txt"):
            opened(root, "voc")

    def test_an_entry_without_an_image_is_refused(self, root):
        voc(root, "a", ("cat", 0, (1, 1, 9, 9)))
        (root / "JPEGImages" / "a.jpg").unlink()
        with pytest.raises(DataError, match="an image for a "):
            opened(root, "voc")


class TestYolo:
    @pytest.fixture
    def root(self, tmp_path):
        for split in ("train", "val"):
            picture(tmp_path / "images" / split / "a.jpg")
            (tmp_path / "labels" / split).mkdir(parents=True)
            (tmp_path / "labels" / split / "a.txt").write_text("1 0.5 0.5 0.5 0.5\n")
        (tmp_path / "data.yaml").write_text("names: {0: cat, 1: dog}\n")
        return tmp_path

    def test_centre_and_size(self, root):
        picture(root / "images" / "train" / "b.jpg")
        splits = opened(root, "yolo")
        target, empty = splits.train.targets
        assert target.corners.tolist() == [[0.25, 0.25, 0.75, 0.75]]
        assert target.labels.tolist() == [1] and not len(empty.labels)
        assert splits.train.class_names == ("cat", "dog")
        assert any("background" in reason for reason in told(splits))

    @pytest.mark.parametrize(
        ("line", "says"),
        [
            ("1 0.5 0.5 0.5", "five numbers .* in line 1 of .*a.txt"),
            ("1 0.1 0.1 0.9 0.1 0.9 0.9", "lines of polygons are not boxes"),
            ("2 0.5 0.5 0.5 0.5", "a class from 0 to 1"),
            ("nan 0.5 0.5 0.5 0.5", "five numbers"),
            ("1 20 10 12 8", "shares of the image, 0 to 1.*Divide pixels"),
            ("inf 0.5 0.5 0.5 0.5", "five numbers"),
        ],
    )
    def test_wrong_lines_are_named(self, root, line, says):
        (root / "labels" / "train" / "a.txt").write_text(line)
        with pytest.raises(DataError, match=says):
            opened(root, "yolo")

    def test_numbers_of_names_may_be_texts(self, root):
        names = "".join(f'  "{number}": n{number}\n' for number in range(11))
        (root / "data.yaml").write_text(f"names:\n{names}")
        expected = tuple(f"n{number}" for number in range(11))
        assert opened(root, "yolo").train.class_names == expected
        (root / "data.yaml").write_text("names: cat\n")
        with pytest.raises(DataError, match="a list or a name for each number; found: the text"):
            opened(root, "yolo")

    def test_labelimg_writes_classes_beside_the_labels(self, root, tmp_path):
        (root / "labels/train/classes.txt").write_text("cat\ndog\n")
        below = tmp_path / "other/labels/set"  # each file of it is below a folder of that name
        for name in ("images", "labels"):
            shutil.copytree(root / name, below / name)
        (below / "classes.txt").write_text("cat\ndog\n")
        (below / "notes.txt").write_text("")
        assert len(opened(below, "yolo").train) == 1

    def test_labels_without_an_image(self, root):
        (root / "labels" / "train" / "z.txt").write_text("")
        with pytest.raises(DataError, match="1 without one; the first: .*z.txt"):
            opened(root, "yolo")


class TestMaps:
    VALUES = np.array([[0, 1], [2, IGNORED]], np.uint8)

    @pytest.fixture
    def root(self, tmp_path):
        picture(tmp_path / "images" / "train" / "a.jpg", 2, 2)
        picture(tmp_path / "images" / "val" / "a.jpg", 2, 2)
        (tmp_path / "classes.json").write_text('["none", "cat", "dog"]')
        for split in ("train", "val"):
            self.save(tmp_path, split, Image.fromarray(self.VALUES))
        return tmp_path

    def save(self, root, split, image):
        path = root / "labels" / split / "a.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)

    def test_indices_and_palettes_are_class_numbers(self, root):
        with_palette = Image.fromarray(self.VALUES).convert("P")
        with_palette.putdata(self.VALUES.flatten().tolist())
        with_palette.putpalette([9, 9, 9] * 256)
        self.save(root, "val", with_palette)
        splits = opened(root, "maps")
        for images in (splits.train, splits.test):
            assert images.targets[0].load(2, 2).tolist() == self.VALUES.tolist()

    def test_files_with_one_bit_have_two_classes(self, root):
        self.save(root, "train", Image.fromarray(self.VALUES == 1))
        assert opened(root, "maps").train.targets[0].load(2, 2).tolist() == [[0, 1], [0, 0]]

    @pytest.mark.parametrize("labels", ["maps", "masks"])
    def test_jpegs_are_no_maps(self, root, labels):
        for split in ("train", "val"):
            path = root / f"labels/{split}/a.png"
            Image.fromarray(self.VALUES).save(path.with_suffix(".jpg"))
            path.unlink()
        with pytest.raises(DataError, match="2 JPEG files, whose compression .*anew as .png"):
            opened(root, labels)

    def test_damaged_names_are_refused(self, root):
        (root / "classes.json").write_text("[cat")
        with pytest.raises(DataError, match="a list of names"):
            opened(root, "maps")

    def test_faults_name_the_file_and_the_value(self, root):
        splits = opened(root, "maps", classes=["none", "cat"])
        with pytest.raises(DataError, match=r"values from 0 to 1 .*a\.png; found: 2"):
            splits.train.targets[0].load(2, 2)
        colours = np.zeros((2, 2, 3), np.uint8)
        colours[0, 0] = (200, 0, 10)
        self.save(root, "train", Image.fromarray(colours))
        with pytest.raises(DataError, match="the palette was lost"):
            opened(root, "maps").train.targets[0].load(2, 2)
        self.save(root, "train", Image.fromarray(np.zeros((3, 2), np.uint8)))
        with pytest.raises(DataError, match="2 × 2 pixels, as its image"):
            opened(root, "maps")

    def test_a_mask_for_each_class(self, root):
        for name, value in (("cat", [[0, 255], [0, 0]]), ("dog", [[0, 0], [1, 0]])):
            path = root / "masks" / "train" / name / "a.png"
            path.parent.mkdir(parents=True)
            Image.fromarray(np.array(value, np.uint8)).save(path)
        splits = opened(root, "masks", holdout=0)
        assert splits.train.class_names == ("background", "cat", "dog")
        assert splits.train.targets[0].load(2, 2).tolist() == [[0, 1], [2, 0]]


class TestCsv:
    @pytest.fixture
    def root(self, tmp_path):
        for name in ("a.jpg", "b.jpg", "sub/c.jpg"):
            picture(tmp_path / name)
        return tmp_path

    def test_labels_and_splits(self, root):
        (root / "labels.csv").write_text("path,label,split\na.jpg,x,train\nb.jpg,y,train\n"
                                         "sub/c.jpg,y,test\n")  # fmt: skip
        splits = opened(root, "csv")
        assert splits.train.class_names == ("x", "y")
        assert splits.train.labels.tolist() == [0, 1] and splits.test.labels.tolist() == [1]

    def test_names_without_an_ending_of_images_in_a_folder(self, tmp_path):
        for name in ("007.JPG", "008.jpg"):
            picture(tmp_path / "train" / name)
        (tmp_path / "train.csv").write_text("image_id,label\n007,x\n008,y\n")
        splits = opened(tmp_path, "csv", holdout=0)
        assert splits.train.class_names == ("x", "y")
        assert len(splits.train) == 2

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("a.jpg,x\nb.jpg\n", "in line 2"),
            ("path;label\na.jpg;x\n", "path;label. Save the list with commas"),
            ("a.jpg,x\nz.jpg,y\n", "the image z.jpg of line 2"),
            ("a.jpg,x,nowhere\n", "train, val or test"),
        ],
    )
    def test_wrong_lines_are_named(self, root, text, says):
        (root / "labels.csv").write_text(text)
        with pytest.raises(DataError, match=says):
            opened(root, "csv")
