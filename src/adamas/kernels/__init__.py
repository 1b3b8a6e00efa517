"""Where tensors are stepped: `eager` and `native`, one signature, chosen by `adamas.torch.dispatch`.

A kernel is a module with
    NAME                             its name in `kernel=` and in `opt.kernel_choices()`
    refuses(traits) -> str | None    why it cannot step such a parameter; None if it can
    prepare(bucket) -> prepared      checks the bucket and raises before anything is written
    step(prepared, scalars) -> None  applies `adamas.scalars.StepScalars` to every tensor of the bucket
Kernels know no optimizer and never import each other.
"""
