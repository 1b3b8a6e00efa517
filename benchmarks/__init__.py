"""How fast, how exact and how good is Adamas? The project's own runs, their results and the pages made of them.

Start reading in `scenarios.py`, the rows that are measured and their limits; `adamas.bench` is what measures them.

- `run.py` measures on a CPU and `gpu/` on a GPU; `results/` holds the figures, a file for each processor.
- `render.py` makes the pages from the figures, with `figure.py` and `markdown.py`.
- `parity.py` trains with every storage format; `tracking/` follows the stored moments; `study_speed.py` times a study.
"""

from __future__ import annotations

from pathlib import Path

RESULTS = Path(__file__).parent / "results"
