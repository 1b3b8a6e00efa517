"""Where tensors are stepped: `eager`, `native` and `triton`, one signature, chosen by `adamas.torch.dispatch`.

A kernel is a module with
    NAME                             its name in `kernel=` and in `opt.kernel_choices()`
    refuses(traits) -> str | None    why it cannot step such a parameter; None if it can
    prepare(bucket) -> prepared      whatever can be kept from one step to the next
    take(prepared, grads) -> None    takes a step's gradients, None for a tensor of which only the average goes on;
                                     raises MismatchError before anything is written
    upcoming(prepared) -> numbers, which
                                     with `bucket.counts`: the numbers of the steps that are due, and for each tensor
                                     which of them it takes; None where there is but one
    squares(prepared) -> list        sums of the gradients' squares in float64, of each or of pieces of it: numbers, or
                                     tensors on their device
    step(prepared, scalars, which, zero_grad) -> None
                                     applies `adamas.scalars.StepScalars` to every tensor: scalars[which[i]] to tensor
                                     i, or the only ones to all where `which` is None; then zeroes gradients if asked
                                     to, and with `bucket.counts` adds 1 to the tensor "step" in each state
    release(prepared) -> None        lets the gradients go without a step
A scalar that is a tensor is 0-d; for `triton` it may also have an element for each tensor of the bucket.
`counter.py` counts steps for `eager` and `triton`, `lists.py` has what fronts ask of lists of tensors, and
`gradient.py` the norm and the verdict on it. Kernels know no optimizer and never import each other. `gpu/` holds the
code that `triton` runs on the device.
"""
