"""pytest-benchmark suites of the regression gate (`lmwp_bench.gate`)."""
