"""What the package offers is pinned."""

import profilers


def test_profilers() -> None:
    assert set(profilers.__all__) == {
        "KeyHistory",
        "LatencyTable",
        "LocalMeter",
        "MeasureConfig",
        "Measurement",
        "MergeResult",
        "Meter",
        "Mismatch",
        "MissingKeyError",
        "Note",
        "ProfilerError",
        "Ratio",
        "RoundSamples",
        "SessionFacts",
        "Slowdown",
        "Steadiness",
        "TableError",
        "TableMismatchError",
        "Timing",
        "Usage",
        "Workload",
        "bench_engines",
        "build_table",
        "describe_table",
        "measure_rounds",
        "merge_tables",
        "open_meter",
        "refuse_other_runs",
        "table_csv",
        "usage_of",
    }
    assert all(hasattr(profilers, name) for name in profilers.__all__)
