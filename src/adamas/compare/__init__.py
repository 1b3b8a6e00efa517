"""`adamas compare`: does a training job want Adam with L2 or AdamW, and with what weight decay?

The modules, in order of use: `workloads` (what is trained), `arms` (the candidates), `budgets` and `grids` (what
is tried), `study` (runs it, through Optuna), `statistics` and `verdict` (what it means), `report` (the page).
"""
