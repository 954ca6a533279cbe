"""Side by side, in one run, as ratios. Timings are never asserted in tests; goals are in DESIGN 8."""
