"""Operations of a step, against a count by hand."""

from hvae.experiments.shared.costs.flops import flops_of_step
from hvae.lab.config import DataConfig, ModelConfig, RunConfig, TrainingConfig


def test_a_dense_step_has_three_products_a_layer_and_one_gradient_less() -> None:
    """Forward, weights, inputs: each 2 B n m of a layer from n to m numbers. Nobody asks for the gradient of x."""
    config = RunConfig(
        DataConfig("mnist-static"), ModelConfig(latents=(4,), hidden=((8,),)), training=TrainingConfig(batch_size=32)
    )
    layers = ((784, 8), (8, 8), (4, 8), (8, 784))  # q: x, hidden, mean and log-variance; p: z, hidden, logits
    products = sum(n * m for n, m in layers)
    assert flops_of_step(config) == 2 * 32 * (3 * products - 784 * 8)
