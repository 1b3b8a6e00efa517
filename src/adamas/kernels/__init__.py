"""Where tensors are stepped: `eager` and `native`, one signature, chosen by `adamas.torch.dispatch`.

A kernel is a module with
    NAME                             its name in `kernel=` and in `opt.kernel_choices()`
    refuses(traits) -> str | None    why it cannot step such a parameter; None if it can
    prepare(bucket) -> prepared      whatever can be kept from one step to the next
    take(prepared, grads) -> None    takes a step's gradients, None for a tensor of which only the average goes on;
                                     raises MismatchError before anything is written
    squares(prepared) -> list        each gradient's sum of squares in float64: numbers, or 0-d tensors on its device
    step(prepared, scalars, which, zero_grad) -> None
                                     applies `adamas.scalars.StepScalars` to every tensor: scalars[which[i]] to tensor
                                     i, or the only ones to all where `which` is None; then zeroes gradients if asked to
    release(prepared) -> None        lets the gradients go without a step
Kernels know no optimizer and never import each other.
"""
