"""How well stored moments follow the exact ones: NumPy models of published low-bit Adams beside our own formats."""
