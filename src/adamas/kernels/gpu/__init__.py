"""The Triton code behind `adamas.kernels.triton`: read `step.py` first.

    step.py      the kernel: a chunk of a tensor is loaded, decoded, stepped, encoded and stored
    rule.py      the rule, for elements in registers
    moments.py   moments of fewer bits
    weights.py   weights of 16 bits, and those with the bits that they lack
    random_bits.py  the random bits of all that
    norm.py      the sums of the gradients' squares
    layout.py    which element of which tensor a program steps
    table.py     the addresses and programs of a bucket, on the device
    factors.py   a step's scalars, as a launch takes them

The same operations in the same order as `native/`: the same bits.
"""
