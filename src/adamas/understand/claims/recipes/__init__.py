"""What does each claim say, and how is it measured? One file a claim, which reads from top to bottom."""
