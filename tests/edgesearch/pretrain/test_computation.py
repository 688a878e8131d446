"""Precision and memory format: what is chosen, by what is measured, and what is said."""

import math

import pytest
import torch

from edgesearch.families import load_space
from edgesearch.pretrain import computation
from edgesearch.pretrain.computation import (
    Computation,
    as_given,
    choose_computation,
    computes_bf16,
    step_times_s,
)
from edgesearch.pretrain.settings import PretrainSettings

CPU = torch.device("cpu")
FP32, BF16 = Computation("fp32", "channels_last"), Computation("bf16", "channels_last")
FIRST = Computation("fp32", "channels_first")


@pytest.fixture
def choose(space, monkeypatch):
    """Choose with given instruction sets and relative times; other candidates take 9."""

    def choose(times, sets=("avx2",), **given):
        def measured(space, candidates, images, device):
            assert set(times) <= set(candidates)
            return {each: times.get(each, 9.0) for each in candidates}

        monkeypatch.setattr(computation, "step_times_s", measured)
        return choose_computation(PretrainSettings(**given), space, CPU, sets)

    return choose


@pytest.mark.parametrize("sets", [("avx512f", "avx512_bf16"), ("amx_tile", "amx_bf16")])
def test_the_fastest_is_chosen_and_what_the_others_took_is_said(choose, sets):
    choice = choose({FP32: 1.8, BF16: 1.0, FIRST: 2.0}, sets)
    assert choice.computation == BF16
    assert choice.words == (
        "computes in bf16, channels last; timed steps of others took: fp32, channels last 1.80 "
        "times as long, fp32, channels first 2.00 times as long, bf16, channels first 9.00 times "
        "as long"
    )


def test_the_usual_one_is_kept_where_others_are_hardly_faster_or_slower(choose):
    assert choose({FP32: 1.0, FIRST: 0.91}).computation == FP32
    assert choose({FP32: 1.0, FIRST: 0.89}).computation == FIRST
    # bf16 on a tiny network.
    assert choose({FP32: 1.0, BF16: 1.4}, ("avx512_bf16",)).computation == FP32


def test_bf16_is_no_candidate_without_instructions_for_it(choose):
    choice = choose({FP32: 1.0, FIRST: 2.0}, ("avx2", "avx512f", "avx512_vnni"))
    assert choice.words == (
        "computes in fp32, channels last (this processor has no instructions for bf16); timed "
        "steps of others took: fp32, channels first 2.00 times as long"
    )
    with pytest.raises(AssertionError):  # it was not among the candidates
        choose({BF16: 1.0})


def test_what_is_given_is_taken_and_bf16_that_is_slow_is_told(choose):
    given = {"precision": "bf16", "memory_format": "channels_first"}
    silent = choose({}, ("avx512_bf16",), **given)
    assert (silent.computation, silent.words) == (Computation(**given), "")
    warned = choose({}, **given)
    assert warned.computation == silent.computation
    assert "but this processor has no instructions for bf16: far slower than fp32" in warned.words
    half = choose({BF16: 2.0}, ("avx512_bf16",), precision="bf16")
    assert half.computation == BF16, "of the formats alone"


def test_a_processor_computes_bf16_by_its_instruction_sets():
    assert computes_bf16(CPU, ("avx512f", "avx512_bf16"))
    assert not computes_bf16(CPU, ("avx512f", "avx512_vnni"))


@pytest.mark.parametrize(("name", "resolution"), [("resnet_tiny", 16), ("mobile_small", 96)])
def test_steps_are_timed_without_touching_the_random_state(name, resolution):
    space = load_space(name, resolutions=[resolution])
    state = torch.get_rng_state()
    times_s = step_times_s(space, [FP32, FIRST], 4, CPU)
    assert torch.equal(torch.get_rng_state(), state)
    assert times_s.keys() == {FP32, FIRST}
    assert all(0 < time_s < math.inf for time_s in times_s.values())


def test_a_timed_step_has_the_images_of_a_pass_as_far_as_it_stays_short():
    small, large = load_space("resnet_tiny"), load_space("resnet50to101", resolutions=[224])
    settings = PretrainSettings(batch_size=64, queue_size=64, accumulation=2)
    assert computation._images(settings, small, CPU) == 32
    assert computation._images(settings, large, CPU) == 4


def test_left_open_and_not_timed_it_is_the_usual_one():
    assert as_given(PretrainSettings()) == FP32
    assert as_given(PretrainSettings(memory_format="channels_first")) == FIRST
