"""The decay X-ray: the effective weight decay of every layer, its equilibrium and its equivalent under AdamW.

sample.py      the numbers of one step: some elements of every layer, in NumPy
figures.py     what is computed from a sample, for each layer and for all layers together
columns.py     the table of figures: keys, titles, meanings
groups.py      the rule of decay that a parameter group follows
elements.py    reads the elements of live parameters and states
momentum.py    the part of the first moment that comes from L2
live.py        `XRay`, attached to an optimizer by hooks
writers.py     CSV and TensorBoard
report.py      the HTML page
files.py       reads checkpoints; matching.py gives their parameters names
saved.py       the sample of a checkpoint
command.py     `adamas xray`
"""
