"""What do the finished runs mean? Statistics, the decision, warnings, and the JSON. Pure functions.

Start with `decision` (from an interval to a verdict), then `statistics` (where the interval comes from) and `result`
(everything that the report shows).
"""
