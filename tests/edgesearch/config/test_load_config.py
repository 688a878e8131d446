"""Reading configurations: where from, with which overrides, and every message."""

import pickle
import warnings
from pathlib import Path
from types import NoneType
from typing import get_args

import pytest

import edgesearch
from edgesearch.config import Config, load_config, shipped_configs
from edgesearch.config.faults import kinds_at
from edgesearch.config.load_config import SHIPPED
from edgesearch.errors import ConfigError
from edgesearch.pretrain.recipes import RECIPES
from edgesearch.search.settings import Budgets
from edgesearch.settings import Settings

SMALLEST = "output_dir: out\nspace: {name: resnet_tiny}\ndata: {source: digits}\n"


@pytest.fixture
def write(tmp_path):
    def write(more="", text=SMALLEST):
        path = tmp_path / "mine.yaml"
        path.write_text(text + more, encoding="utf-8")
        return str(path)

    return write


def faults_of(path, overrides=()):
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    lines = caught.value.found.split("\n  - ")
    assert lines[0] == f"{len(lines) - 1} fault(s):"
    return lines[1:]


@pytest.mark.parametrize("name", ["classify", "detect", "segment"])
def test_the_search_is_for_the_task_that_is_learnt(name):
    config = load_config(f"configs/{name}.yaml")
    assert config.search.task == config.finetune.task


@pytest.mark.parametrize(
    "name", [name for name in shipped_configs() if name.startswith(("cifar10", "imagenet"))]
)
def test_recipes_are_documented_line_by_line(name):
    lines = (SHIPPED / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    values = [line for line in lines if line and line[0] != "#" and not line.endswith(":")]
    assert len(values) > 15
    assert [line for line in values if " # " not in line] == []


def test_recipe_of_data_is_written_out():
    written = load_config("imagenet_resnet50to101", ["data.root=images"]).pretrain
    left_out = {"predictor_hidden_dim", "dense_weight", "teacher_temperature", "threads", "init"}
    left_out |= {"init_licence", "teacher", "clip_gradient", "extend", "memory_format", "init_grey"}
    left_out |= {"teacher_weight"}
    assert type(written).model_fields.keys() - written.model_fields_set == left_out
    defaults = {**RECIPES["moco_v2"].training, **RECIPES["moco_v2"].options}
    assert {name: getattr(written, name) for name in defaults} == defaults


def test_there_is_a_shipped_config_for_each_method():
    named = ["cifar10", *(n for n in shipped_configs() if n.startswith("cifar10_"))]
    methods = [load_config(name, ["data.root=images"]).pretrain.method for name in named]
    assert sorted(methods) == sorted(set(RECIPES) - {"distillation"})  # which needs a teacher


def test_quickstart_keeps_to_what_was_seen_to_work():
    config = load_config("quickstart")
    assert config.data.source == "digits"
    assert config.space.build().in_channels == 1
    assert config.search.budgets.latency_ms is None, "no machine is like another"
    pretrain = config.pretrain
    assert pretrain.queue_size <= 1437 / 4, "a quarter of the training images at most"
    assert pretrain.knn_k == config.evaluation.knn_k == 20
    assert pretrain.projector_bn
    assert pretrain.augmentation.flip_probability == 0


def test_smallest_config_has_all_defaults(write):
    config = load_config(write())
    assert config.output_dir == Path("out")
    assert config.device.build().name == "local-cpu"
    assert config.pretrain.queue_size == 65536
    assert config.export.tensorrt.compute_capabilities == ["SM75", "SM86", "SM89", "SM120"]


@pytest.mark.parametrize("method", RECIPES)
def test_what_is_left_out_is_as_in_the_papers(write, method):
    defaults = RECIPES[method]
    options = [f"pretrain.method={method}"]
    if method == "distillation":
        options.append("pretrain.teacher={onnx: teacher.onnx}")
    pretrain = load_config(write(), options).pretrain
    assert pretrain.method_options() == defaults.options
    assert {name: getattr(pretrain, name) for name in defaults.training} == defaults.training
    others = {name for d in RECIPES.values() for name in d.options} - set(defaults.options)
    assert all(getattr(pretrain, name) is None for name in others)
    assert load_config(write(), [*options, "pretrain.lr="]).pretrain == pretrain
    short = load_config(write(), [*options, "pretrain.epochs=30"]).pretrain
    assert short.warmup_epochs == min(3, defaults.training["warmup_epochs"])


@pytest.mark.parametrize(("epochs", "warmup", "used"), [(1, 2, 0), (20, 20, 2), (20, 19, 19)])
def test_a_warmup_of_all_epochs_is_shortened_with_a_word(write, epochs, warmup, used):
    options = [f"pretrain.epochs={epochs}", f"pretrain.warmup_epochs={warmup}"]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert load_config(write(), options).pretrain.warmup_epochs == used
    said = f"shortened from {warmup} to {used}, since pretrain.epochs is {epochs}"
    assert [said in str(each.message) for each in told] == [True] * (used != warmup)


def test_augmentation_is_that_of_the_method_unless_given(write):
    moco, byol, simclr = (
        load_config(write(), [f"pretrain.method={method}"]).pretrain.augmentation
        for method in ("moco_v2", "byol", "simclr")
    )
    assert (moco.crop_scale, moco.jitter.saturation, moco.blur_probability) == ((0.2, 1), 0.4, 0.5)
    assert (byol.crop_scale, byol.jitter.saturation, byol.blur_probability) == ((0.08, 1), 0.2, 1)
    assert (byol.solarize_probability, byol.jitter.contrast) == (0.2, 0.4)
    assert (simclr.jitter.hue, simclr.jitter.probability) == (0.2, 0.8)
    given = ["pretrain.augmentation.jitter.hue=0", "pretrain.augmentation.crop_scale=[0.5, 1]"]
    found = load_config(write(), ["pretrain.method=simclr", *given]).pretrain.augmentation
    assert (found.jitter.hue, found.jitter.brightness, found.crop_scale) == (0, 0.8, (0.5, 1))


def test_paths(write, tmp_path, monkeypatch):
    write()
    (tmp_path / "quickstart").mkdir()  # a folder of that name does not hide a shipped one
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/somewhere")
    assert load_config("quickstart").output_dir == Path("runs/quickstart")
    config = load_config("mine.yaml", ["output_dir=~/out", "pretrain.init=~/a.safetensors"])
    assert config.output_dir == Path("/somewhere/out")
    assert config.pretrain.init == Path("/somewhere/a.safetensors")


def test_a_space_of_ones_own(write):
    space = load_config(
        write(
            text="output_dir: out\ndata: {source: digits}\nspace:\n  family: resnet\n"
            "  block: basic\n  stem: small\n  stem_widths: [8]\n  stage_widths: [[8], [16]]\n"
            "  stage_depths: [[1, 2], [1]]\n  resolutions: [16]\n"
        )
    ).space.build()
    assert space.size == 2
    assert space.name == "own"


def test_overrides(write):
    config = load_config(
        write("pretrain: {epochs: 3}\nsearch: {population: 9, budgets: {latency_ms: 5}}\n"),
        [
            "seed=1",
            "seed=7",
            "pretrain.lr=1e-3",
            "pretrain.augmentation.jitter.hue=0",
            "pretrain.augmentation.crop_scale=[0.3, 1]",
            "search.population=",
            "search.budgets.latency_p95_ms=6",
            "export.tensorrt=null",
            "output_dir=a=b",
            "space.resolutions=[24, 32]",
            "data.source=shards",
            "data.root=images/train-{000..146}.tar",
        ],
    )
    assert config.seed == 7
    assert (config.pretrain.epochs, config.pretrain.lr) == (3, 1e-3)
    assert config.pretrain.augmentation.jitter.hue == 0
    assert config.pretrain.augmentation.crop_scale == (0.3, 1.0)
    assert config.search.population is None
    assert config.search.budgets == Budgets(latency_ms=5, latency_p95_ms=6)
    assert config.export.tensorrt is None
    assert config.output_dir == Path("a=b")
    assert config.space.build().resolutions == (24, 32)
    assert str(config.data.root) == "images/train-{000..146}.tar"


def test_override_below_an_alias_leaves_the_other_place_alone(write):
    text = "search: {budgets: &b {params: 5e6}}\n"
    config = load_config(write(text), ["search.budgets.macs=1e6"])
    assert (config.search.budgets.params, config.search.budgets.macs) == (5e6, 1e6)
    both = "pretrain: {augmentation: &a {batched: true}}\nsearch: *a\n"
    faults = faults_of(write(both), ["pretrain.augmentation.flip_probability=0"])
    assert faults == [
        "search.batched: unknown key; did you mean search.batch_size?",
    ]


FAULTS = [
    # Keys and types.
    ("latency_ms=4", "latency_ms: unknown key; did you mean search.budgets.latency_ms?"),
    (
        "profile.zzz=4",
        "profile.zzz: unknown key; known here: rounds, least_ms, max_rounds, interval, runs",
    ),
    ("search.budgets={macs: {mn: 5}}", "search.budgets.macs.mn: unknown key; did you mean sear"),
    (
        "search.budgets.devices={raspberry-pi-5: {latency_m: 5}}",
        "search.budgets.devices.raspberry-pi-5.latency_m: unknown key; did you mean "
        "search.budgets.devices.raspberry-pi-5.latency_ms?",
    ),
    (
        "pretrain={method: byol, augmentation: {jitter: {hu: 1}}}",
        "pretrain.augmentation.jitter.hu: unknown key; did you mean pretrain.augmentation",
    ),
    ("pretrain.epochs=-1", "pretrain.epochs: must be greater than or equal to 0; found: -1"),
    ("pretrain.epochs=0", "pretrain.init: weights are required, since pretrain.epochs is 0"),
    ("pretrain.epochs='3'", "pretrain.epochs: must be a valid integer; found: '3'"),
    ("pretrain.epochs=true", "pretrain.epochs: must be a valid integer; found: true"),
    ("pretrain.epochs=2.5", "pretrain.epochs: must be a valid integer; found: 2.5"),
    ("pretrain.epochs=", "pretrain.epochs: must be a valid integer; found: null"),
    ("pretrain.lr=.nan", "pretrain.lr: must be a finite number; found: .nan"),
    ("output_dir=", "output_dir: must be a text; found: null"),
    ("pretrain=", "pretrain: must be a section of keys; found: null"),
    ("device=local-cpu", "device: must be a section of keys; found: 'local-cpu'"),
    (
        "device=raspbery-pi-5",
        "device: must be a section of keys; found: 'raspbery-pi-5'. Did you mean "
        "device.name=raspberry-pi-5 (in a file: {name: raspberry-pi-5})?",
    ),
    (
        "space=resnet_tinny",
        "space: must be a section of keys; found: 'resnet_tinny'. Did you mean "
        "space.name=resnet_tiny (in a file: {name: resnet_tiny})?",
    ),
    ("pretrain.augmentation.jitter=3", "pretrain.augmentation.jitter: must be a section of keys"),
    ("pretrain.augmentation.crop_scale=[0.9]", "pretrain.augmentation.crop_scale.1: required, but"),
    ("seed", "'seed': must have the form key.of.a.section=value"),
    ("a..b=1", "'a..b=1': must have the form key.of.a.section=value"),
    ("seed.x=1", "seed.x: seed is not a section; found: 0"),
    ("seed=[1", "seed: must be valid YAML; found: '[1' (line 1, column 3: expected"),
    ("data={root: 1, root: 2}", "data: root: given twice, in lines 1 and 1"),
    # Training.
    (
        "pretrain.queue_size=1000",
        "pretrain.queue_size: a multiple of pretrain.batch_size (256) is required; found: 1000. "
        "The nearest is 1024",
    ),
    ("pretrain.batch_size=96", "pretrain.queue_size: a multiple of pretrain.batch_size (96)"),
    (
        "pretrain.largest_only_epochs=200",
        "pretrain.largest_only_epochs: fewer epochs than pretrain.epochs (200) are required; "
        "found: 200. 0 trains smaller subnets from the start",
    ),
    ("pretrain.method=mocov2", f"pretrain.method: one of {', '.join(RECIPES)} is required"),
    (
        "pretrain.dense_weight=0.5",
        "pretrain.dense_weight: null is required, since moco_v2 has no such option; "
        "found: 0.5. Leave it out; on the command line, pretrain.dense_weight= does",
    ),
    (
        "pretrain={method: simclr, faithful: true}",
        "pretrain.faithful: false is required for any pretrain.method but moco_v2; found: true",
    ),
    (
        "pretrain={distill: 0.5, faithful: true}",
        "pretrain.faithful: false is required with pretrain.distill or pretrain.loss_weights",
    ),
    (
        "pretrain.augmentation.crop_scale=[0.9, 0.5]",
        "pretrain.augmentation.crop_scale: the smaller share first is required; found: [0.9, 0.5]",
    ),
    # Search and budgets.
    (
        "search.strategy=evolve",
        "search.strategy: must be 'surrogate', 'evolution', 'tpe', 'random' or 'exhaustive'; ",
    ),
    (
        "search.population=60",
        "search.population: a quarter of search.evaluations (200) at most is required; found: 60",
    ),
    (
        "search.budgets={latency_ms: 5, latency_of_largest: 0.5}",
        "search.budgets.latency_of_largest: either latency_ms or latency_of_largest is required, "
        "not both; found: 0.5",
    ),
    ("search.budgets.latency_p95_ms=0", "search.budgets.latency_p95_ms: must be greater than 0"),
    (
        "search.budgets={macs: {min: 5, max: 3}}",
        "search.budgets.macs: a min that is at most max is required; found: 5 to 3",
    ),
    (
        "search.budgets={macs: [5, 6]}",
        "search.budgets.macs: must be a number, or a section of min and max; found: [5, 6]",
    ),
    (
        "search.budgets={latency_of_largest: {min: 0.1}}",
        "search.budgets.latency_of_largest: must be a share, or a list of them; found: {",
    ),
    ("search.budgets.latency_ms=[]", "search.budgets.latency_ms: must have at least 1 item; f"),
    ("search.budgets.latency_ms=[1, -2]", "search.budgets.latency_ms.1: must be greater than"),
    (
        "search.budgets={devices: {bord: {latency_ms: 1}}}",
        "search.budgets.devices: a device of the catalog",
    ),
    (
        "search.budgets={devices: {local-cpu: {latency_ms: 1}}}",
        "search: names of other devices are required in search.budgets.devices; found: "
        "'local-cpu'. Set the budgets of the device itself in search.budgets",
    ),
    # Images, device, space, table, engines.
    (
        "data={source: folder}",
        "data.root: the path of the folder of images is required (data.root=",
    ),
    ("data={source: shards}", "data.root: the path of the folder for data.source=shards is req"),
    (
        "data={source: torchvision, name: CIFAR10}",
        "data.root: the path of the folder for data.source=torchvision is required (data.root=",
    ),
    (
        "data={source: torchvision, root: sets}",
        "data.name: the name of a class of torchvision.datasets is required (data.name=NAME)",
    ),
    (
        "data={source: folder, root: sets, name: CIFAR10}",
        "data.name: null is required for any data.source but torchvision; found: 'CIFAR10'",
    ),
    ("data={source: web}", "data.source: must be 'folder', 'shards', 'torchvision' or 'digits'"),
    ("data.mean=[0.5]", "data.std: as many values as in data.mean are required"),
    ("data.std=[0.5]", "data.std: as many values as in data.mean are required"),
    (
        "data={source: digits, mean: [0.5], std: [0.2]}",
        "data: mean and std of 3 value(s) are required, one for each channel of the space",
    ),
    ("data.holdout=1", "data.holdout: must be less than 1; found: 1"),
    ("device.name=local-cpuu", "device: "),
    ("device.threads=0", "device: "),
    ("device={host: a, hosts: [b]}", "device.hosts: either host or hosts is required, not both"),
    ("space.name=resnet_tinny", "space: the name of a space is one of "),
    ("space.name=", "space: `name` of a space or `family` of a new one is required; found: "),
    ("space.in_channels=2", "space: the search space 'resnet_tiny' needs valid choices; "),
    ("space.family=vit", "space: the family of a space is one of "),
    (
        "space={name: mine, famly: mobile}",
        "space: `family` of a new space is required; found: `famly`. Did you mean `family`?",
    ),
    ("space={Family: mobile}", "space: `family` of a new space is required; found: `Family`. Did"),
    ("space.resolutoins=[8]", "space: a resnet space has the fields "),
    (f"seed={2**63}", f"seed: must be less than {2**63}; found: {2**63}"),
    ("seed=-1", "seed: must be greater than or equal to 0; found: -1"),
    ("profile.accept=driver", "profile.accept: must be a list, such as [A, B]; found: 'driver'"),
    ("profile={rounds: 5, max_rounds: 4}", "profile.max_rounds: at least profile.rounds (5) is"),
    (
        "profile.accept=[space]",
        "profile.accept: fields in which tables are compared are required: name, runtime, provider",
    ),
    (
        "export.tensorrt.compute_capabilities=[sm75]",
        r"export.tensorrt.compute_capabilities.0: must match pattern '^SM\d{2,3}$'",
    ),
    ("export.tensorrt.compute_capabilities=[]", "export.tensorrt.compute_capabilities: "),
    ("export.tensorrt.precision=fp32", "export.tensorrt.precision: fp16 is required for SM75"),
]


@pytest.mark.parametrize(("override", "message"), FAULTS)
def test_each_fault_has_its_message(write, override, message):
    (fault,) = faults_of(write("seed: 0\n"), [override])
    assert fault.startswith(message)
    assert "form:" not in fault


def test_only_near_names_are_suggested(write):
    (fault,) = faults_of(write("seed: 0\n"), ["device=nothing-such"])
    assert fault == "device: must be a section of keys; found: 'nothing-such'"


def sections(schema, path=""):
    """The paths of all sections, with their settings; the space's own keys are not known here."""
    for name, field in schema.model_fields.items():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, Settings) and name != "space":
                yield f"{path}{name}", kind
                yield from sections(kind, f"{path}{name}.")


@pytest.mark.parametrize(("path", "schema"), [("", Config), *sections(Config)])
def test_a_misspelt_key_of_any_section_is_told_with_the_one_that_was_meant(write, path, schema):
    """Also: every key is described."""
    for name, field in schema.model_fields.items():
        assert field.description, name
        known = f"{path}.{name}".lstrip(".")
        if not known.startswith("search.budgets.devices"):
            (fault,) = faults_of(write(), [f"{known[:-1]}_{known[-1]}=1"])
            assert fault.endswith(f": unknown key; did you mean {known}?")


class TestExclusiveOptions:
    FILE = "search: {budgets: {latency_of_largest: 0.5}}\ndevice: {hosts: [a, b]}\n"

    def test_an_override_replaces_the_other(self, write):
        config = load_config(write(self.FILE), ["search.budgets.latency_ms=4", "device.host=c"])
        assert config.search.budgets == Budgets(latency_ms=4)
        assert config.device.build().hosts == ("c",)

    def test_null_replaces_nothing(self, write):
        budgets = load_config(write(self.FILE), ["search.budgets.latency_ms="]).search.budgets
        assert budgets == Budgets(latency_of_largest=0.5)

    def test_two_overrides_exclude_each_other(self, write):
        both = ["search.budgets.latency_ms=4", "search.budgets.latency_of_largest=0.3"]
        for overrides in (both, both[::-1]):
            (fault,) = faults_of(write(self.FILE), overrides)
            assert "either latency_ms or latency_of_largest is required, not both" in fault


def test_all_faults_at_once(write):
    text = (
        "output_dirr: out\nseed: x\nseed: -1\n1: 2\nspace: {name: nothing}\ndata: {source: web}\n"
        "pretrain: {lr: 0, queue_size: 100, batch_size: 64}\nsearch: {budgets: {params: 0}}\n"
    )
    starts = [
        "seed: given twice, in lines 2 and 3",
        "'word': must have",
        "output_dir: required, but not given",
        "seed: must be greater",
        "space: the name",
        "data.source: must be",
        "pretrain.lr: must be",
        "pretrain.queue_size: a multiple",
        "search.budgets.params: must be",
        "output_dirr: unknown key; did you mean output_dir?",
        "1: must be",
        "search.x: unknown key",
    ]
    faults = faults_of(write(text=text), ["word", "search.x=1"])
    assert len(faults) == len(starts)
    assert [start for start in starts if not any(f.startswith(start) for f in faults)] == []


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words\n"])
def test_a_file_without_keys(write, text):
    faults = faults_of(write(text=text), ["seed=1"])
    assert faults[0].startswith("seed: the file is not a section; found: ")
    assert faults[1].startswith("the file: must be a section of keys; found: ")


def test_an_empty_file_lacks_what_is_required(write):
    assert faults_of(write(text="# nothing\n")) == [
        f"{key}: required, but not given" for key in ("output_dir", "space", "data")
    ]


def test_huge_values_are_shortened(write):
    (fault,) = faults_of(write(f"seed: {'x' * 10_000}\n"))
    assert len(fault) < 150


def test_missing_file_lists_the_shipped_configs(tmp_path):
    with pytest.raises(ConfigError, match=r"\(.*quickstart.*\); found: no file .*none.yaml"):
        load_config(str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match=r"no file quikstart. Did you mean quickstart\?"):
        load_config("quikstart")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(ConfigError, match=rf"found: the folder .*edgesearch init {tmp_path}"):
        load_config(str(tmp_path))
    (tmp_path / "config.yaml").touch()
    with pytest.raises(ConfigError, match=rf"of this run: {tmp_path}/config.yaml"):
        load_config(str(tmp_path))


def test_a_file_that_is_not_utf8(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"seed: \xff")
    with pytest.raises(ConfigError, match="UTF-8 at .*; found: byte 6 is not UTF-8"):
        load_config(str(path))


def test_a_syntax_error_gives_line_and_column(write):
    with pytest.raises(
        ConfigError, match=r"valid YAML in .*mine.yaml; found: line 5, column 1: expected"
    ):
        load_config(write("seed: [1\n"))


def test_a_config_is_frozen_and_survives_pickling(write):
    config = load_config(write())
    assert pickle.loads(pickle.dumps(config)) == config
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 1


@pytest.mark.parametrize("overrides", ["seed=1", [3], [["seed=1"]]])
def test_overrides_are_a_list_of_texts(overrides):
    with pytest.raises(ConfigError, match="a list of texts key=value as overrides; found: "):
        load_config("quickstart", overrides)


def test_overrides_stand_beside_a_file():
    with pytest.raises(ConfigError, match="only beside a file or a name; found: 'seed=7' beside"):
        edgesearch.Run(load_config("quickstart"), "seed=7")


LITERAL = (
    *("runs/x #2", "2026-11-28", "1_000", "on", "0755", "a: b", "[x]", "{x}", "*x", "a=b"),
    *(" a ", "'x'", "null", "5", "a\nb", "!!int 5", "grün", "gr\udcfcn"),
)


@pytest.mark.parametrize("text", LITERAL)
def test_a_text_or_path_on_the_command_line_is_taken_literally(write, text):
    given = [f"output_dir={text}", f"device.python={text}", "data.source=folder", "data.root=x"]
    config = load_config(write(), given)
    assert config.output_dir == Path(text)
    if text != "null":
        assert config.device.python == text
        assert load_config(write(), [*given, f"data.root={text}"]).data.root == Path(text)


def text_options(schema=Config, path=()):
    """Key paths of all options that are texts or lists of texts, whether they may be null."""
    for name, field in schema.model_fields.items():
        if (path, name) != ((), "space"):
            for kind in (field.annotation, *get_args(field.annotation)):
                if isinstance(kind, type) and issubclass(kind, Settings):
                    yield from text_options(kind, (*path, name))
        kinds = kinds_at(Config, (*path, name))
        if kinds and kinds <= {str, list[str], NoneType}:
            yield ".".join((*path, name)), kinds


def test_the_options_that_are_texts():
    found = dict(text_options())
    assert found["output_dir"] == {str}
    assert found["pretrain.init"] == found["search.task"] == {str, NoneType}
    assert found["profile.accept"] == {list[str]}
    assert len(found) > 25
    assert not {"seed", "search.stages", "search.budgets.latency_ms", "data.mean"} & set(found)


@pytest.mark.parametrize("empty", ["", "null"])
def test_null_unsets_an_option_that_may_be_null(write, empty):
    file = write("pretrain: {init: a.safetensors}\ndevice: {hosts: [a]}\n")
    config = load_config(file, [f"pretrain.init={empty}", f"device.hosts={empty}"])
    assert config.pretrain.init is config.device.hosts is None
    assert load_config(file, ["pretrain.init=./null"]).pretrain.init == Path("null")


def test_items_of_a_list_of_texts_are_taken_literally(write):
    hosts = load_config(write(), ["device.hosts=[on, 1.10, 2026-11-28, 'a:b', no]"]).device.hosts
    assert hosts == ["on", "1.10", "2026-11-28", "a:b", "no"]


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("2026-11-28", "2026-11-28"),
        ("1_000", "1000"),
        ("on", "true"),
        ("0755", "493"),
        ("1.10", "1.1"),
        ("[x, y]", "['x', 'y']"),
        ("{x: ~}", "{'x': null}"),
    ],
)
def test_a_text_in_a_file_that_yaml_reads_as_something_else(write, written, found):
    """The remedy, taken literally, gives the text."""
    text = f"output_dir: {written} # note\nspace: {{name: resnet_tiny}}\ndata: {{source: digits}}\n"
    (fault,) = faults_of(write(text=text))
    start = f"output_dir: must be a text; found: {found}. As a text it needs quotes: "
    assert fault == f"{start}output_dir: '{written}'"
    mended = text.replace(f"output_dir: {written}", fault.removeprefix(start))
    assert load_config(write(text=mended)).output_dir == Path(written)
    (fault,) = faults_of(write(), [f"device={{hosts: [a, {written}]}}"])
    assert fault.endswith(f"found: {found}. As a text it needs quotes: 1: '{written}'")


def test_a_text_that_is_missing_needs_no_quotes(write):
    assert faults_of(write(text=f"output_dir:\n{SMALLEST.partition(chr(10))[2]}")) == [
        "output_dir: must be a text; found: null"
    ]


def test_a_field_of_a_space_that_is_nearly_right(write):
    (fault,) = faults_of(write(), ["space.resolutoins=[8]"])
    assert fault.endswith("found: unknown resolutoins. Did you mean resolutions?")


def test_a_byte_order_mark(write):
    assert load_config(write(text=f"\ufeff{SMALLEST}")).output_dir == Path("out")


def test_a_home_folder_that_is_missing(write, monkeypatch):
    (fault,) = faults_of(write(), ["output_dir=~nobody-of-this-name/out"])
    assert fault.startswith("output_dir: a home folder is required for ~; found: none for ~nobody-")
    assert load_config(write(), ["output_dir=./~nobody"]).output_dir == Path("~nobody")
