"""How fast is a step on an NVIDIA GPU, and how much memory does it take? This is `make gpu`.

Start reading in `plan.py`, the table of what is measured. `__main__.py` measures it with `adamas.bench.harness`, in one
process and until a deadline. `suite.py` first runs the tests that need a GPU. All of it needs the standard library,
torch and NumPy alone, so that it runs on a bare checkout.
"""
