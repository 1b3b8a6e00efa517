"""Where tensors are stepped: `eager` and `native`, one signature, chosen by `adamas.torch.dispatch`.

A kernel is a module with
    NAME                             its name in `kernel=` and in `opt.kernel_choices()`
    refuses(traits) -> str | None    why it cannot step such a parameter; None if it can
    prepare(bucket) -> prepared      whatever can be kept from one step to the next
    take(prepared, grads) -> None    takes a step's gradients; raises MismatchError before anything is written
    squares(prepared) -> list        each gradient's sum of squares in float64: numbers, or 0-d tensors on its device
    step(prepared, scalars, zero_grad) -> None
                                     applies `adamas.scalars.StepScalars` to every tensor of the bucket, and then zeroes
                                     the gradients where asked to
Kernels know no optimizer and never import each other.
"""
