"""How well do stored moments follow the exact ones? Published low-bit formats and our own, fed the same gradients.

Start reading in `experiment.py`, which feeds them and keeps the result. `formats.py` has the formats and
their table, the published ones as NumPy models. `render.py` and `figure.py` make the page of the result.
"""
