"""What the real VBench downloads at run time, to be put into its cache beforehand.

Paths are below ``$VBENCH_CACHE_DIR`` (default ~/.cache/vbench), as vbench 0.1.5 looks for them. Two
are fetched by torch.hub and by openai-clip into caches of their own; nothing is downloaded here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WeightFile:
    """One file that VBench reads."""

    path: str
    """below VBench's cache; with ``~`` in the cache of another library"""
    url: str
    """where vbench 0.1.5 takes it from"""
    dimensions: tuple[str, ...]
    """that need it"""


_CLIP = "https://openaipublic.azureedge.net/clip/models"
_HUB = "https://huggingface.co"
WEIGHTS = (
    WeightFile(
        "~/.cache/torch/hub/facebookresearch_dino_main + dino_vitbase16_pretrain.pth",
        "https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth",
        ("subject_consistency",),
    ),
    WeightFile(
        "~/.cache/clip/ViT-B-32.pt",
        f"{_CLIP}/40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt",
        ("background_consistency", "appearance_style"),
    ),
    WeightFile(
        "amt_model/amt-s.pth",
        f"{_HUB}/lalala125/AMT/resolve/main/amt-s.pth",
        ("motion_smoothness",),
    ),
    WeightFile(
        "raft_model/models/raft-things.pth",
        "https://dl.dropboxusercontent.com/s/4j4z58wuv8o0mfz/models.zip",
        ("dynamic_degree", "temporal_flickering (its static filter)"),
    ),
    WeightFile(
        "~/.cache/clip/ViT-L-14.pt",
        f"{_CLIP}/b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt",
        ("aesthetic_quality",),
    ),
    WeightFile(
        "aesthetic_model/emb_reader/sa_0_4_vit_l_14_linear.pth",
        "https://github.com/LAION-AI/aesthetic-predictor (sa_0_4_vit_l_14_linear.pth)",
        ("aesthetic_quality",),
    ),
    WeightFile(
        "pyiqa_model/musiq_spaq_ckpt-358bb6af.pth",
        "https://github.com/chaofengc/IQA-PyTorch/releases/download/v0.1-weights/"
        "musiq_spaq_ckpt-358bb6af.pth",
        ("imaging_quality",),
    ),
    WeightFile(
        "umt_model/l16_ptk710_ftk710_ftk400_f16_res224.pth",
        f"{_HUB}/OpenGVLab/VBench_Used_Models/resolve/main/l16_ptk710_ftk710_ftk400_f16_res224.pth",
        ("human_action",),
    ),
    WeightFile(
        "grit_model/grit_b_densecap_objectdet.pth",
        "https://datarelease.blob.core.windows.net/grit/models/grit_b_densecap_objectdet.pth",
        ("object_class", "multiple_objects", "color", "spatial_relationship"),
    ),
    WeightFile(
        "caption_model/tag2text_swin_14m.pth",
        f"{_HUB}/spaces/xinyu1205/recognize-anything/resolve/main/tag2text_swin_14m.pth",
        ("scene",),
    ),
    WeightFile(
        "ViCLIP/ViClip-InternVid-10M-FLT.pth",
        f"{_HUB}/OpenGVLab/VBench_Used_Models/resolve/main/ViClip-InternVid-10M-FLT.pth",
        ("temporal_style", "overall_consistency"),
    ),
)
