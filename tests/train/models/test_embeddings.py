import pytest
import torch

from hummingbird_train.models.embeddings import sinusoid_table

DIMS = [0, 1, 80, 159, 160, 161, 240, 319]
PUBLISHED = {
    8: [-0.1455, 0.296948, 0.996802, 1.0, 0.989358, 0.954894, 0.079915, 0.000847],
    28: [-0.962606, 0.266571, 0.961055, 0.999996, 0.270906, 0.963815, 0.276356, 0.002966],
    999: [0.99965, 0.802678, -0.84447, 0.994406, -0.026461, 0.596413, -0.535603, 0.105622],
}


@pytest.mark.parametrize("number", PUBLISHED)
def test_sinusoids_equal_the_published_values(number: int) -> None:
    row = sinusoid_table(320)[number, DIMS]
    # The published values carry six decimals and float32 angles: 999 * 6e-8 = 6e-5 at most.
    torch.testing.assert_close(row, torch.tensor(PUBLISHED[number]), atol=6e-5, rtol=0)


def test_row_zero_is_ones_then_zeros() -> None:
    table = sinusoid_table(6)
    assert table.shape == (1000, 6)
    assert table.dtype == torch.float32
    assert table[0].tolist() == [1, 1, 1, 0, 0, 0]
