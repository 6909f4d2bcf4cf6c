"""A residual top-down VAE with spatial latents, as VDVAE and NVAE are, and the diagnosis of each of its layers.

Run it with `python examples/vdvae.py`; it takes about a minute. Latents lie at 1x1, 2x2, 4x4 and 8x8. The net is
written as its author would; the model enters in the eight lines of `as_model`.
"""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal, kl_divergence
from torch.nn import functional as F

import hvae

WIDTH, UNITS = 16, 2


class Block(nn.Module):
    """One latent layer: p(z | h), q(z | h, activations of x), and what z adds to h."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        kernel, padding = (3, 1) if size > 2 else (1, 0)
        self.prior_net = nn.Conv2d(WIDTH, 2 * UNITS, kernel, padding=padding)
        self.posterior_net = nn.Conv2d(2 * WIDTH, 2 * UNITS, kernel, padding=padding)
        self.project = nn.Conv2d(UNITS, WIDTH, 1)
        self.residual = nn.Sequential(nn.GELU(), nn.Conv2d(WIDTH, WIDTH, kernel, padding=padding))

    def prior(self, h: Tensor) -> Normal:
        return _normal(self.prior_net(h))

    def posterior(self, h: Tensor, activations: Tensor) -> Normal:
        return _normal(self.posterior_net(torch.cat([h, activations], 1)))

    def widen(self, h: Tensor) -> Tensor:
        return h if h.shape[-1] == self.size else F.interpolate(h, size=self.size)

    def below(self, h: Tensor, z: Tensor) -> Tensor:
        h = h + self.project(z)
        return h + self.residual(h)


def _normal(outputs: Tensor) -> Normal:
    mean, log_scale = outputs.chunk(2, dim=1)
    return Normal(mean, F.softplus(log_scale + 0.5) + 1e-3)


class TopDown(nn.Module):
    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.zeros(1, WIDTH, 1, 1))
        self.blocks = nn.ModuleDict({f"z{len(sizes) - place}": Block(size) for place, size in enumerate(sizes)})
        for block in self.blocks.values():  # small steps, as there are many
            block.project.weight.data *= len(sizes) ** -0.5
            block.residual[-1].weight.data *= len(sizes) ** -0.5
        self.into = nn.Conv2d(1, WIDTH, 3, padding=1)
        self.down = nn.ModuleList([nn.Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in range(3)])
        self.to_x = nn.Conv2d(WIDTH, 1, 3, padding=1)

    def upward(self, x: Tensor) -> dict[int, Tensor]:
        """Activations of x at every size."""
        found = {8: self.into(x)}
        for size, conv in zip((4, 2, 1), self.down, strict=True):
            found[size] = F.avg_pool2d(found[2 * size] + conv(F.gelu(found[2 * size])), 2)
        return found

    def elbo(self, x: Tensor) -> Tensor:
        activations, total = self.upward(x), torch.zeros(len(x))
        h = self.start.expand(len(x), -1, -1, -1)
        for block in self.blocks.values():
            h = block.widen(h)
            p, q = block.prior(h), block.posterior(h, activations[block.size])
            total = total - kl_divergence(q, p).flatten(1).sum(1)
            h = block.below(h, q.rsample())
        return total + Bernoulli(logits=self.to_x(h)).log_prob(x).flatten(1).sum(1)


def as_model(net: TopDown) -> hvae.Model:
    def walk(visit):
        h = net.start.expand(visit.rows, -1, -1, -1)
        for name, block in net.blocks.items():
            h = block.widen(h)
            z = visit(name, p=block.prior(h), q=lambda: block.posterior(h, visit.code[block.size]))
            h = block.below(h, z)
        visit("x", p=Bernoulli(logits=net.to_x(h)))

    return hvae.Model.joint(walk, encode=net.upward, module=net)


def digits() -> Tensor:
    """The 8x8 digits of scikit-learn in black and white, ``[1797, 1, 8, 8]``, in their own order."""
    return (torch.tensor(load_digits().images, dtype=torch.float32) / 16 > 0.5).float().unsqueeze(1)


def trained(net: TopDown, images: Tensor, n_steps: int) -> TopDown:
    optimiser = torch.optim.Adam(net.parameters(), lr=2e-3)
    for _ in range(n_steps):
        optimiser.zero_grad()
        (-net.elbo(images[torch.randint(len(images), (64,))]).mean()).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 10.0)
        optimiser.step()
    return net


def main(sizes: tuple[int, ...] = (1, 1, 2, 2, 4, 4, 8, 8), n_steps: int = 600) -> "hvae.Diagnosis":
    torch.manual_seed(0)
    images = digits()
    net = trained(TopDown(sizes), images[:1500], n_steps)
    diagnosis = hvae.diagnose(as_model(net), images[1500:], own_elbo=net.elbo, label=f"{len(sizes)} layers")
    print(diagnosis)
    return diagnosis


if __name__ == "__main__":
    main()
