"""Reward models: programmatic ones on pixels, the tiny world's learned judge, CLIP-type towers."""
