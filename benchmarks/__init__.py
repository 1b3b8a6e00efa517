"""The project's own benchmark: its scenarios, their results, and the pages made of them."""
