"""What is kept of a parameter: `step` and both moments as in torch, and what the options ask for beside them.

    layout.py    which tensors there are, their dtypes, shapes and strides, and whether a tensor fits: the only checks
    format.py    in which format a parameter's moments and weight are stored, and why
    conform.py   a state as it is found -> a complete one in the format and layout that a step needs

Start with `layout.py`. Unlike torch's, moments are float32 or wider unless asked otherwise, whatever the parameter's
dtype: in bfloat16 rounded to nearest, a second moment with beta2 = 0.999 never moves again.
"""
