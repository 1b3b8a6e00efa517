"""A page to play with: Adam with L2 beside AdamW on two weights, in one offline HTML file."""
