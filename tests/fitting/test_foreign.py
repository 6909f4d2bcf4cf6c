"""`fit` trains a user's own model, by the functions that visit its variables."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal

import hvae
from hvae import rng
from hvae.suitability import UnsuitedError


class Vae(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.encoder, self.decoder = nn.Linear(6, 4), nn.Linear(2, 6)
        self.double()

    def model(self, *shape: int) -> hvae.Model:
        def infer(visit: hvae.Visit) -> None:
            mean, log_scale = visit.code.chunk(2, dim=-1)
            visit("z", Normal(mean, log_scale.exp()))

        def generate(visit: hvae.Visit) -> None:
            z = visit("z", Normal(torch.zeros(2, dtype=torch.float64), 1.0))
            visit("x", Bernoulli(logits=self.decoder(z).unflatten(-1, shape or (6,))))

        return hvae.Model(infer, generate, encode=lambda x: self.encoder(x.flatten(1)), module=self)


def batches(n: int, *shape: int) -> list[Tensor]:
    source = torch.Generator().manual_seed(7)
    return [torch.rand(20, *shape, generator=source, dtype=torch.float64).round() for _ in range(n)]


def test_it_is_a_loop_written_by_hand() -> None:
    """Adam on the mean of log p(x, z) - log q(z|x), on the same noise: 1e-10 after 30 steps, for two replicas."""
    vaes, data = [Vae(0), Vae(1)], batches(3, 6)
    by_hand = copy.deepcopy(vaes)
    for seed, vae in enumerate(by_hand):
        optimiser = torch.optim.Adam(vae.parameters(), lr=0.01)
        for step in range(30):
            x = data[step % 3]
            drawn = rng.noise({"z": ("normal", 2)}, 2, 20, seed=seed, purpose="train", step=step, dtype=torch.float64)
            mean, log_scale = vae.encoder(x).chunk(2, dim=-1)
            z = mean + log_scale.exp() * drawn["z"]
            log_q = Normal(mean, log_scale.exp()).log_prob(z).sum(-1)
            log_p = Normal(0.0, 1.0).log_prob(z).sum(-1) + Bernoulli(logits=vae.decoder(z)).log_prob(x).sum(-1)
            optimiser.zero_grad()
            (log_q - log_p).mean().backward()
            optimiser.step()
    for _ in hvae.fit([vae.model() for vae in vaes], hvae.Elbo(), data, n_steps=30, learning_rate=0.01, n_samples=2):
        pass
    for vae, other in zip(vaes, by_hand, strict=True):
        for one, two in zip(vae.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-10)


def test_data_have_the_shape_that_the_functions_see() -> None:
    vae, before = Vae(0), copy.deepcopy(Vae(0).state_dict())
    (record,) = hvae.fit(vae.model(2, 3), hvae.Iwae(), iter(batches(2, 2, 3)), n_steps=1, n_samples=3)
    assert record.bound_nats.shape == (1,)
    assert any(not torch.equal(value, before[name]) for name, value in vae.state_dict().items())


def test_an_encoder_is_reached_by_the_score_free_gradient() -> None:
    """`Evidence.frozen` weighs anew under constant weights: the code of these data is made under them too."""
    vae = Vae(0)
    for _ in hvae.fit(vae.model(), hvae.StickingTheLanding(hvae.Elbo()), batches(2, 6), n_steps=2):
        pass
    first = Vae(0)
    assert not torch.equal(vae.encoder.weight, first.encoder.weight)


def test_objectives_that_train_p_and_q_apart_refuse() -> None:
    with pytest.raises(UnsuitedError, match="share"):
        hvae.fit(Vae(0).model(), hvae.WakeSleep(), batches(2, 6), n_steps=1)


def test_a_model_without_module_is_refused() -> None:
    model = Vae(0).model()
    with pytest.raises(hvae.ConfigError, match="module=net"):
        hvae.fit(hvae.Model(model.infer, model.generate, model.encode), hvae.Elbo(), batches(2, 6), n_steps=1)


def test_no_batches_are_refused() -> None:
    empty: Iterator[Tensor] = iter(())
    for source in ([], empty):
        with pytest.raises(hvae.ConfigError, match="batches"):
            hvae.fit(Vae(0).model(), hvae.Elbo(), source, n_steps=1)
