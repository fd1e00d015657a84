"""Ways to rewrite a caption; each module is one, and `recaption.py` runs them."""
