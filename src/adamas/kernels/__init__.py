"""The kernels that step tensors: `eager`, `native` and `triton`, with one signature, chosen by `adamas.torch.dispatch`.

A kernel is a module with
    NAME                             its name in `kernel=` and in `opt.kernel_choices()`
    refuses(traits) -> str | None    the reason why it cannot step such a parameter; None if it can
    prepare(bucket) -> prepared      makes everything that stays the same from step to step
    take(prepared, grads) -> None    checks every tensor and takes a step's gradients; None for a tensor of which only
                                     the average moves; raises MismatchError before anything is written
    upcoming(prepared) -> numbers, which
                                     for a bucket that `counts`: the numbers of the coming steps, each once, and for
                                     each tensor the index of its own; None instead of indices if there is one number
    squares(prepared) -> list        sums of the squares of the gradients, or of parts of them, in float64: numbers, or
                                     tensors on the gradients' device
    step(prepared, scalars, which, zero_grad) -> None
                                     steps tensor i with `adamas.scalars.StepScalars` number which[i], or with the only
                                     ones where `which` is None; then zeroes gradients if asked to, and for a bucket
                                     that `counts` adds 1 to the tensor "step" in each state
    release(prepared) -> None        drops the gradients without a step
A scalar that is a tensor is 0-d; for `triton` it may also have one element for each tensor of the bucket.

Kernels know no optimizer and never import each other. They share `bucket.py` (tensors, and refusals), `counter.py`
(step counts), `capture.py` (CUDA graphs). Fronts call `gradient.py` (norm, and whether to skip a step) and `lists.py`
(questions about lists of tensors). `gpu/` has the code that `triton` runs on the device.
"""
