"""What the package offers is pinned."""

import profilers


def test_profilers() -> None:
    assert set(profilers.__all__) == {
        "LatencyTable",
        "MeasureConfig",
        "MissingKeyError",
        "NetworkMeasurement",
        "ProfilerError",
        "RoundSamples",
        "TableError",
        "TableMismatchError",
        "Workload",
        "build_table",
        "measure_rounds",
    }
    assert all(hasattr(profilers, name) for name in profilers.__all__)
