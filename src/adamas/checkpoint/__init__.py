"""The state of an Adam or AdamW in a safetensors file, and its conversion between torch, JAX, Keras and NumPy.

    api.py          `save`, `load`, `load_weights` and `convert`
    contents.py     what a checkpoint holds, as plain data, and whether it is whole
    file.py         the safetensors file: its layout, writing and reading
    conversion.py   new names and shapes, conventions, and what is refused
    rules.py        rules for names and for the order of axes
    encoding.py     packed moments <-> float32
    torch_state.py, jax_state.py, keras_state.py, numpy_state.py    live optimizers <-> plain data
    frameworks.py   which framework an object belongs to
    command.py      what `adamas convert` prints

Importing this package imports no framework. `docs/checkpoints.md` describes the layout and the rules.
"""

from adamas.checkpoint.api import convert, load, load_weights, save
from adamas.checkpoint.contents import CheckpointError
from adamas.checkpoint.conversion import Report
from adamas.checkpoint.rules import Rules

__all__ = ["CheckpointError", "Report", "Rules", "convert", "load", "load_weights", "save"]
