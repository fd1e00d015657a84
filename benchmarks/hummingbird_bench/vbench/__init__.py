"""VBench (Huang et al., CVPR 2024): its prompts, file names, formula, and the real package."""
