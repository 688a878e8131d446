"""Descriptions of devices, and the catalog."""

import re
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from devices import DeviceSpec, known_devices, load_device, read_catalog
from devices.errors import UnknownDeviceError
from devices.values import in_yaml


def test_every_device_of_the_catalog_loads_under_its_own_name() -> None:
    names = known_devices()
    assert "local-cpu" in names
    for name in names:
        is_far_away = read_catalog(name)["transport"] == "ssh"
        spec = load_device(name, hosts=["board.local"] if is_far_away else None)
        assert spec.name == name
        assert spec.description


def test_every_device_of_the_catalog_says_what_to_install() -> None:
    for name in known_devices():
        assert len(read_catalog(name)["install"].splitlines()) > 1, name


def test_a_device_far_away_needs_a_host() -> None:
    far = [name for name in known_devices() if read_catalog(name)["transport"] == "ssh"]
    assert {"jetson-orin-nano", "jetson-agx-orin", "raspberry-pi-5"} <= set(far)
    for name in far:
        with pytest.raises(UnknownDeviceError, match=f"a host for .*{name}.*device.host=NAME"):
            load_device(name)
        assert load_device(name, transport="local").hosts == ()


def test_local_cpu_is_one_thread_of_onnxruntime_in_fp32() -> None:
    spec = load_device("local-cpu")
    assert (spec.runtime, spec.precision, spec.threads, spec.batch, spec.transport) == (
        "onnxruntime",
        "fp32",
        1,
        1,
        "local",
    )


def test_overrides_replace_fields_and_none_keeps_them() -> None:
    spec = load_device("local-cpu", threads=2, batch=None)
    assert (spec.threads, spec.batch) == (2, 1)


def test_unknown_device_names_known_ones_and_the_nearest() -> None:
    with pytest.raises(UnknownDeviceError, match=r"local-cpu, .*found: 'local-cpo'.*Did you mean"):
        load_device("local-cpo")


@pytest.mark.parametrize("name", ["../errors", "", "/etc/passwd"])
def test_a_path_is_no_device(name: str) -> None:
    with pytest.raises(UnknownDeviceError, match="device of the catalog"):
        load_device(name)


def test_unknown_override_names_the_nearest_field() -> None:
    with pytest.raises(UnknownDeviceError, match="unknown field 'thread'.*Did you mean threads"):
        load_device("local-cpu", thread=2)


def test_a_description_without_a_name_is_refused() -> None:
    with pytest.raises(UnknownDeviceError, match="needs the field 'name'.*only threads"):
        DeviceSpec.from_dict({"threads": 2})


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("name", "a/b", "letters, digits"),
        ("name", "", "letters, digits"),
        ("name", 5, "letters, digits"),
        ("runtime", "ncnn", "one of onnxruntime, tensorrt, tensorrt-rtx"),
        ("runtime", ["onnxruntime"], "one of onnxruntime, tensorrt, tensorrt-rtx"),
        ("transport", None, "one of local, ssh"),
        ("provider", "hexagon", "one of cpu, cuda, .*, or left out"),
        ("python", "", "a name"),
        ("machine", "", "a name, or left out"),
        ("ssh_config", 5, "a name, or left out"),
        ("precision", "", "a name"),
        ("precision", ["fp32"], "a name"),
        ("threads", 0, "a whole number from 1 on"),
        ("threads", True, "a whole number from 1 on"),
        ("batch", 1.5, "a whole number from 1 on"),
        ("description", 3, "a text"),
    ],
)
def test_impossible_values_are_refused_by_field(field: str, value: object, allowed: str) -> None:
    values = {"name": "board", field: value}
    message = f"'{field}' of a device must be {allowed}.*found: {re.escape(in_yaml(value))}"
    with pytest.raises(UnknownDeviceError, match=message):
        DeviceSpec.from_dict(values)


@pytest.mark.parametrize("runtime", ["tensorrt", "tensorrt-rtx"])
def test_only_onnxruntime_has_execution_providers(runtime: str) -> None:
    message = f"'provider' of a device must be left out for the runtime '{runtime}'; found: 'cuda'"
    with pytest.raises(UnknownDeviceError, match=message):
        DeviceSpec("board", runtime, provider="cuda")


@pytest.mark.parametrize("provider", [None, "cpu", "xnnpack"])
def test_no_half_precision_on_processors(provider: str | None) -> None:
    message = "another precision than 'fp16' .* found: onnxruntime computes it in fp32 on proc"
    with pytest.raises(UnknownDeviceError, match=message):
        DeviceSpec("board", precision="fp16", provider=provider)
    assert DeviceSpec("board", precision="fp16", provider="cuda").number_format() == "fp16"


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ({"runtime": "tensorrt-rtx"}, "s8s8-symmetric"),
        ({"provider": "tensorrt"}, "s8s8-symmetric"),
        ({"provider": "cuda"}, "s8s8-symmetric"),
        ({"machine": "aarch64"}, "s8s8"),
        ({"machine": "x86_64", "instruction_sets": ("avx2", "avx512_vnni")}, "u8s8"),
        ({"machine": "x86_64", "instruction_sets": ("avx2",)}, "u8s8-reduced"),
    ],
)
def test_eight_bits_are_those_that_a_device_likes(device: dict[str, Any], expected: str) -> None:
    found = {key: device.pop(key) for key in ("machine", "instruction_sets") if key in device}
    assert DeviceSpec("board", precision="int8", **device).number_format(**found) == expected


def test_round_trip() -> None:
    spec = DeviceSpec("board", "tensorrt", "fp16", 4, 8, "ssh", ("a", "b"), "python3.11", "config")
    assert DeviceSpec.from_dict(spec.to_dict()) == spec


def test_identity_is_that_of_what_a_latency_depends_on() -> None:
    spec = DeviceSpec("board")
    assert re.fullmatch("[0-9a-f]{8}", spec.identity)
    assert (
        spec.identity
        == DeviceSpec("other", description="x", transport="ssh", hosts=("a",)).identity
    )
    others = [
        DeviceSpec("board", runtime="tensorrt"),
        DeviceSpec("board", precision="int8"),
        DeviceSpec("board", batch=2),
        DeviceSpec("board", threads=2),
        DeviceSpec("board", provider="cuda"),
    ]
    assert len({spec.identity, *(other.identity for other in others)}) == 6


@pytest.mark.parametrize(
    ("values", "allowed"),
    [
        ({"hosts": ["a"]}, "left out for the transport 'local'"),
        ({"transport": "ssh", "hosts": ["-oProxyCommand=x"]}, "a list of different host names"),
        ({"transport": "ssh", "hosts": ["a", "a"]}, "a list of different host names"),
        ({"transport": "ssh", "hosts": "a"}, "a list of different host names"),
    ],
)
def test_hosts_are_those_of_ssh(values: dict[str, object], allowed: str) -> None:
    with pytest.raises(UnknownDeviceError, match=f"'hosts' of a device must be {allowed}"):
        DeviceSpec.from_dict({"name": "board", **values})


def test_identity_never_changes() -> None:
    # It is in the names of tables that people keep.
    assert DeviceSpec("board").identity == "8e58d7ee"


def test_a_description_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        DeviceSpec("board").threads = 2  # type: ignore[misc]
