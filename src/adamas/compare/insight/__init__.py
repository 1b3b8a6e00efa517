"""What a study shows beside its verdict: pure functions of its runs, which decide nothing."""
