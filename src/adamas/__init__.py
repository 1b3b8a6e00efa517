"""Adamas: Adam and AdamW, exact and fast, with evidence of what weight decay does to a model.

Importing this package imports no framework: take the front you need (`adamas.torch`).
"""

__version__ = "0.1.0"
