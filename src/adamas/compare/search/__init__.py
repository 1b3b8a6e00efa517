"""Which runs come next, given the outcomes so far? Pure functions: nothing here trains.

Start with `protocol`, which goes from the pilot to the finals. Its parts, in order of use: `pilot` (finds the range of
learning rates), `grids` (each arm's first runs), `refine` (closer looks), `selection` (the chosen config).
"""
