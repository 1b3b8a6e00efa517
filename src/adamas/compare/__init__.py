"""`adamas compare`: does a training job want Adam with L2 or AdamW, and with what weight decay?

The modules, in order of use: `job` (what a training job is), `workloads` (those that are built in), `preflight` (looks
a job over), `arms` (the candidates), `budgets`, `pilot`, `grids` and `followup` (what is tried), `stages` (the
protocol), `study` (gets its runs done, through Optuna), `training` (trains them), `statistics` and `verdict` (what it
means), `report` (the page).
"""

from adamas.compare.job import Job, OwnLoop, constant, cosine

__all__ = ["Job", "OwnLoop", "constant", "cosine"]
