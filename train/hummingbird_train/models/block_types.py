"""The blocks that every network is stacked of: units of sharding and of checkpointing."""

from __future__ import annotations

from hummingbird_train.models.attention import SpatialTransformer, TemporalTransformer
from hummingbird_train.models.autoencoder import ResnetBlock
from hummingbird_train.models.blocks import ResBlock
from hummingbird_train.models.text_encoder import ResidualAttentionBlock

BLOCKS = (
    ResBlock,
    SpatialTransformer,
    TemporalTransformer,
    ResnetBlock,
    ResidualAttentionBlock,
)
"""What is gathered as one when sharded, and computed again in backward when checkpointed."""
