"""User data: clips and captions of shards, folders and tables to pixels, latents and contexts."""

from hummingbird_train.data.clip_source import ClipSource
from hummingbird_train.data.entries import Entry, read_entries
from hummingbird_train.data.loader import ClipDataset, Sample, open_dataset

__all__ = ["ClipDataset", "ClipSource", "Entry", "Sample", "open_dataset", "read_entries"]
