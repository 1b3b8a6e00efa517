"""What is a study? The arms, the budget, the settings, and one run with its outcome: plain data.

Start with `run` (one training run and its outcome), then `arms` (the candidates) and `settings` (one comparison).
This room imports no other room of `adamas.compare`.
"""
