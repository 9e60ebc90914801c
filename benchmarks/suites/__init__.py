"""The benchmarks, one suite a module; ``SUITES`` in ``benchmarks.suites.all_suites`` lists them."""
