"""A VAE of one's own, in plain PyTorch, and its diagnosis.

Run it with `python examples/own_model.py`; it takes about ten seconds. The data are binary images of 36 pixels with two
bars. The latent has eight units, far more than two bars need.
"""

import torch
from torch import nn
from torch.distributions import Bernoulli, Normal, kl_divergence

import hvae


class Vae(nn.Module):
    """Nothing of this is known to hvae."""

    def __init__(self, n_pixels: int = 36, n_units: int = 8) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(n_pixels, 64), nn.ReLU(), nn.Linear(64, 2 * n_units))
        self.decoder = nn.Sequential(nn.Linear(n_units, 64), nn.ReLU(), nn.Linear(64, n_pixels))

    def posterior(self, x: torch.Tensor) -> Normal:
        mean, log_scale = self.encoder(x).chunk(2, dim=-1)
        return Normal(mean, log_scale.exp())

    def elbo(self, x: torch.Tensor) -> torch.Tensor:
        q = self.posterior(x)
        z = q.rsample()
        kl = kl_divergence(q, Normal(torch.zeros_like(z), 1.0)).sum(-1)
        return Bernoulli(logits=self.decoder(z)).log_prob(x).sum(-1) - kl


def bars(n: int, seed: int) -> torch.Tensor:
    """6x6 images with one row and one column switched on, and a tenth of the pixels flipped."""
    source = torch.Generator().manual_seed(seed)
    images = torch.zeros(n, 6, 6)
    images[torch.arange(n), torch.randint(6, (n,), generator=source)] = 1
    images[torch.arange(n), :, torch.randint(6, (n,), generator=source)] = 1
    flipped = torch.rand(n, 6, 6, generator=source) < 0.1
    return torch.where(flipped, 1 - images, images).flatten(1)


def main(n_steps: int = 2000) -> "hvae.Diagnosis":
    torch.manual_seed(0)
    vae, data = Vae(), bars(5000, seed=0)
    optimiser = torch.optim.Adam(vae.parameters(), lr=2e-3)
    for _ in range(n_steps):
        batch = data[torch.randint(len(data), (100,))]
        optimiser.zero_grad()
        (-vae.elbo(batch).mean()).backward()
        optimiser.step()

    def infer(visit):  # q, in its own order
        visit("z", vae.posterior(visit.code))

    def generate(visit):  # p, from the top to x
        z = visit("z", Normal(torch.zeros(8), 1.0))
        visit("x", Bernoulli(logits=vae.decoder(z)))

    diagnosis = hvae.diagnose(hvae.Model(infer, generate, module=vae), bars(512, seed=1), own_elbo=vae.elbo)
    print(diagnosis)
    return diagnosis


if __name__ == "__main__":
    main()
