"""The state of a parameter: `step` and both moments as in torch, and the tensors that further options need.

    layout.py    the tensors of a state, their dtypes, shapes and strides, and whether a tensor fits: the only checks
    format.py    the format in which the moments and the weight of a parameter are stored, and the reason
    conform.py   completes a state and brings it into the format and layout that a step needs
    shards.py    states of parameters that several processes share (DTensor)

Start with `layout.py`. By default moments are float32 or wider, whatever the parameter's dtype. torch uses the
parameter's dtype: in bfloat16, rounded to nearest, a second moment with beta2 = 0.999 soon stops changing.
"""
