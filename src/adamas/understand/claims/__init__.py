"""Which claims about Adam and AdamW are true? Each claim is a small experiment with a rule that judges its figures.

`registry` lists the claims. Each is a file of its own: the sentence, the experiment, the rule, the words. `command`
runs them for `adamas claims`.
"""
