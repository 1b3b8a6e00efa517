"""`adamas bench`: the speed and the error of a step, or of the whole optimizer phase, beside other implementations.

A single time says little on a shared machine; the ratio of two that were taken in turns in one process says more. No
speed is reported for a wrong result.
"""
