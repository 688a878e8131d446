"""A run: its configuration, its places, and what a stage's result depends on."""

import warnings

import pytest

import edgesearch
from edgesearch.config import Config
from edgesearch.errors import ConfigError, StageError, UserError, UserNotice
from edgesearch.run.context import RunContext


@pytest.fixture
def run(small_config, tmp_path):
    def run(**sections):
        values = {**small_config, "output_dir": str(tmp_path / "out")}
        values |= {name: {**values.get(name, {}), **section} for name, section in sections.items()}
        return RunContext(Config.model_validate(values))

    return run


@pytest.mark.parametrize(
    ("sections", "changes"),
    [
        ({"data": {"holdout": 0.3}}, True),
        ({"data": {"licence": "CC0-1.0"}}, False),
        ({"search": {"images": 63}}, True),
        ({"search": {"score": "cka"}}, True),
        ({"search": {"budgets": {"macs": 1}}}, False),
        ({"search": {"evaluations": 64}}, False),
        ({"evaluation": {"knn_k": 9}}, False),
        ({"device": {"threads": 2}}, False),
    ],
)
def test_what_scores_depend_on(run, sections, changes):
    assert (run(**sections).decisive("score") != run().decisive("score")) == changes


def test_what_else_counts(run):
    decisive = run().decisive("device", "evaluation", "rank")
    assert decisive["seed"] == 0
    assert decisive["space"] == run().space.to_dict()
    assert decisive["device"] == run().device.measured_fields
    assert decisive["evaluation.knn_k"] == 5
    assert "rank.subnets" not in decisive, "more of them go on from fewer"
    assert run(device={"threads": 2}).decisive("device") != run().decisive("device")


def test_what_a_user_should_know_of_a_space_is_told_once(tmp_path):
    little = {"name": "little", "family": "mobile", "activation": "relu", "resolutions": [32, 48]}
    little |= {"stem_widths": [4], "head_widths": [8], "stage_strides": [2] * 4}
    for field, value in {"widths": 4, "depths": 1, "kernels": 3, "expansions": 2}.items():
        little[f"stage_{field}"] = [[value]] * 4
    config = {"space": little, "data": {"source": "digits"}, "output_dir": str(tmp_path)}
    context = RunContext(Config.model_validate(config))
    with pytest.warns(UserNotice, match="resolution 48 of little: the strides multiply to 32"):
        told = context.space
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert context.space is told


def test_places_are_below_the_output_folder(run, tmp_path):
    files = run().files
    assert len(vars(files)) > 8
    for each in vars(files).values():
        place = getattr(each, "folder", each)
        assert place.is_relative_to(tmp_path / "out")
    assert files.table(run().device) != files.table(run(device={"threads": 2}).device)


def test_one_writer(run):
    first, second = run(), run()
    with first.writing(), second.writing():
        assert first.may_write
        assert not second.may_write
        with pytest.raises(UserError, match="only process"):
            second.require_lock()
    with second.writing():
        second.require_lock()


def test_images_are_opened_once_where_they_are_shared(run):
    one = run()
    with one.one_pool():
        assert one.open_images() is one.open_images()
        assert one.open_images(decode_all=True) is not one.open_images()
    assert one.open_images() is not one.open_images()


def test_what_was_not_made_yet_names_its_command(run):
    with pytest.raises(StageError, match="Run `edgesearch pretrain`"):
        run().weights_digest()


def test_run_takes_a_name_a_file_or_a_configuration(config_file):
    run = edgesearch.Run("quickstart", "search.evaluations=32", "output_dir=elsewhere")
    assert run.config.search.evaluations == 32
    assert run.files.winners.parts == ("elsewhere", "winners.json")
    of_file = edgesearch.Run(config_file)
    assert edgesearch.Run(of_file.config).config == of_file.config
    with pytest.raises(ConfigError, match=r"2 fault\(s\)"):
        edgesearch.Run("quickstart", "seed=x", "search.x=1")
