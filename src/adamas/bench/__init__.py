"""How fast and how exact is a step, or a whole optimizer phase, compared with other implementations?

Start reading in `harness.py`: it checks our implementation and a peer, and then times both in turns. What it is given:

- `scenario.py`: which tensors are stepped and how they are stored.
- `peers/`: one adapter for each other implementation; `rule.py` is the rule that all of them are asked for.
- `device.py` and `clock.py`: a CPU or a GPU, and how a call is timed there; `memory.py` moves the bytes of a step.
- `peak.py` measures memory instead of time.

What comes of it: a `row.py` for each comparison, all of them in a `result.py`, shown by `table.py`. `process.py` gives
a comparison a process of its own, `loop.py` goes through all of them, and `command.py` is `adamas bench`.
"""
