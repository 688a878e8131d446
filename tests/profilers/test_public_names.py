"""What the package offers is pinned."""

import profilers


def test_profilers() -> None:
    assert set(profilers.__all__) == {
        "KeyHistory",
        "LatencyTable",
        "LocalMeter",
        "MeasureConfig",
        "Measurement",
        "Meter",
        "MissingKeyError",
        "NetworkMeasurement",
        "ProfilerError",
        "RoundSamples",
        "Steadiness",
        "TableError",
        "TableMismatchError",
        "Workload",
        "build_table",
        "measure_rounds",
        "open_meter",
    }
    assert all(hasattr(profilers, name) for name in profilers.__all__)
