"""How do runs get done? They are trained here, alone or several together, by one process or by many.

Start with `training` (one run from its first step to its outcome), then `conduct` (gets the runs of a study done) and
`trials` (where runs wait and outcomes are kept).
"""
