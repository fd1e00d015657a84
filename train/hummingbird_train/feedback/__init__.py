"""Visual feedback learning: rewards on decoded frames, mixed and bounded, beside a frozen anchor.

Section 3.2 of the Hummingbird paper, after T2V-Turbo (arXiv:2405.18750): the consistency loss
stays on, image and video rewards are added, and monitors stop what games them.
"""
