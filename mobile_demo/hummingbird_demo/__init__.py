"""The demo app: a sentence becomes a clip on this device.

Everything outside ``ui`` is free of Kivy: the worker that draws, the view-models that hold what the
screens show, the clips and the models on disk. Only ``ui`` draws and takes touches.
"""
