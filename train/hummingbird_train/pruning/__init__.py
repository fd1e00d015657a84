"""Block pruning of the video U-Net: plan, surgery, its inverse, and what each block is worth."""
