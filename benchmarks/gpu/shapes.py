"""The parameters that are stepped on a GPU: four lists of shapes, the same number of weights in three of them."""

from __future__ import annotations

from adamas.bench.scenario import Shape

LARGE, ONE, MODEL, SMALL = "16 x 64 M", "1 x 1 G", "1 B transformer", "1,000 x 1 k"


def transformer(vocabulary: int = 32_000, width: int = 2048, layers: int = 18, hidden: int = 5632) -> tuple[Shape, ...]:
    """The parameters of a Llama-like decoder: 1.06 B in 165 tensors.

    Of each layer the projections q, k, v and o, those of the gated feed-forward block (gate, up, down) and two norms;
    an embedding, a norm at the end and a head that is not tied to the embedding.

    Args:
        vocabulary: number of tokens.
        width: of the residual stream.
        layers: how many.
        hidden: width inside of the feed-forward blocks.
    """
    attention = ((width, width),) * 4
    feed_forward = ((hidden, width), (hidden, width), (width, hidden))
    layer = (*attention, *feed_forward, (width,), (width,))
    return ((vocabulary, width), *layer * layers, (width,), (vocabulary, width))


SHAPES: dict[str, tuple[Shape, ...]] = {
    LARGE: ((8192, 8192),) * 16,
    ONE: ((32_768, 32_768),),
    MODEL: transformer(),
    SMALL: ((32, 32),) * 1000,
}
# For `--dry-run`: as many kinds of tensors, of next to no size.
TINY: dict[str, tuple[Shape, ...]] = {
    LARGE: ((64, 128),) * 4,
    ONE: ((128, 256),),
    MODEL: transformer(vocabulary=80, width=64, layers=2, hidden=96),
    SMALL: ((4, 8),) * 20,
}
# What errors are measured on: float64 of a billion weights would take minutes. Together less than 1 M; rows that no
# block divides, a vector and a single element.
TWIN: tuple[Shape, ...] = ((512, 1024), (255, 257), (64, 4097), (333,), (1,))
