"""The Triton code behind `adamas.kernels.triton`: read `step.py` first.

    step.py         the kernel: loads, decodes, steps, encodes and stores blocks of a tensor
    rule.py         the rule, for elements in registers
    moments.py      moments in fewer bits
    weights.py      weights of 16 bits, and those with low bits
    random_bits.py  the random bits for rounding
    norm.py         the sums of the gradients' squares
    layout.py       the elements of a program, and how it loads and stores them
    table.py        on the host: the addresses of a bucket's tensors, and their programs
    arguments.py    on the host: the arguments of a launch

The operations and their order are those of `native/`, and so are the bits.

Device functions share these arguments:
    at      the addresses of one tensor's arrays, indexed by the constants of `layout`; 0 for a missing array
    place   of a block: (its first element, its number of elements, its number, its row, its column, the row's length,
            the index of its first element in the whole parameter)
    lane    the block's elements, counted from its first; see `layout.lanes`
    left    the block's number of elements
    which   the number of the tensor's step, for scalars with one element for each step
    OPT     the options that the kernel is compiled for: `arguments.Options`, or in `norm` only `arguments.Word`
    WIDE    0, or how many elements of each array lie in one thread, for a block of 256 elements that begins at a
            multiple of 16 bytes in every array
"""
