"""What weight decay does to a model: measured, explained, and to play with."""
