"""Models whose observation is predicted element by element: text, pixels, a series with latents in between.

Tolerances are the errors in float32 that were seen when the models were first tried: rounding of sums of tens of nats.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Normal

import hvae
from tests.foreign.authors import coins, error_of, gaussian, stacked, weighed

WORDS, END, PAD, LONGEST, D = 7, 0, 0, 6, 3
N = 11


class TextVAE(nn.Module):
    """Bowman et al. 2016: an LSTM reads the sentence, another writes it from z; all tokens after END are padding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS + 1, 5)  # the last is the start
        self.reader, self.writer = nn.LSTM(5, 6, batch_first=True), nn.LSTM(5, 6, batch_first=True)
        self.statistics, self.start, self.out = nn.Linear(6, 2 * D), nn.Linear(D, 6), nn.Linear(6, WORDS)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        states, _ = self.reader(self.embed(x))
        last = states[torch.arange(len(x)), real(x).sum(1) - 1]
        mean, log_scale = self.statistics(last).chunk(2, -1)
        return mean, log_scale.exp()

    def logits(self, x: Tensor, z: Tensor) -> Tensor:
        """Of each token given those before it: teacher forcing."""
        before = torch.cat([torch.full((len(x), 1), WORDS), x[:, :-1]], 1)
        h = self.start(z).tanh().unsqueeze(0)
        states, _ = self.writer(self.embed(before), (h, torch.zeros_like(h)))
        return self.out(states)

    def sample(self, z: Tensor) -> Tensor:
        x = torch.full((len(z), LONGEST), PAD)
        for t in range(LONGEST):
            x[:, t] = Categorical(logits=self.logits(x, z)[:, t]).sample()
        return torch.where(real(x), x, PAD)


def real(x: Tensor) -> Tensor:
    """Tokens up to the first END, which counts."""
    return ((x == END).long().cumsum(1) - (x == END).long()) == 0


def sentences(seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    x = torch.randint(1, WORDS, (N, LONGEST))
    for row, length in enumerate(torch.randint(1, LONGEST + 1, (N,))):
        x[row, length - 1 :] = END
    return x


def token_by_token(net: TextVAE, x: Tensor, z: Tensor) -> Tensor:
    """log p(x|z) of one sentence without padding: one step of the LSTM a token."""
    h = net.start(z).tanh().reshape(1, 1, -1)
    state, last, total = (h, torch.zeros_like(h)), torch.tensor(WORDS), torch.zeros(())
    for token in x:
        out, state = net.writer(net.embed(last).reshape(1, 1, -1), state)
        total = total + net.out(out).flatten().log_softmax(-1)[token]
        if token == END:
            break
        last = token
    return total


def read_alone(net: TextVAE, x: Tensor) -> tuple[Tensor, Tensor]:
    """q of one sentence without padding."""
    ends = (x == END).nonzero().flatten()
    length = int(ends[0]) + 1 if len(ends) else LONGEST
    states, _ = net.reader(net.embed(x[:length]).unsqueeze(0))
    mean, log_scale = net.statistics(states[0, -1]).chunk(2)
    return mean, log_scale.exp()


def text() -> tuple[TextVAE, Tensor]:
    x = sentences()
    return TextVAE().eval(), x


def infer_z(visit: Any) -> None:
    visit("z", Normal(*visit.code))


def test_a_text_by_an_lstm_with_padding_and_teacher_forcing() -> None:
    net, x = text()

    def generate(visit: Any) -> None:
        z = visit("z", Normal(torch.zeros(D), 1.0))
        visit("x", hvae.law(lambda x: said(net.logits(x, z), x), lambda: net.sample(z)))

    def said(logits: Tensor, x: Tensor) -> Tensor:
        return (logits.log_softmax(-1).gather(-1, x.unsqueeze(-1)).squeeze(-1) * real(x)).sum(1)

    def author(values: Any, i: int) -> Tensor:
        z = values["z"]
        return token_by_token(net, x[i], z) + gaussian(z, torch.zeros(D), 1.0) - gaussian(z, *read_alone(net, x[i]))

    model = hvae.Model(infer_z, generate, encode=net.encode)
    assert error_of(model, {"x": x}, author) <= 2.4e-6

    stack = stacked(model, {"x": x})  # and whole sentences are drawn
    noise = hvae.noise(stack.decoder.noise_specs(), 2, N, seed=0, purpose="test")
    with torch.no_grad():
        drawn = stack.decoder.walk({}, noise)["x"]
        again = stack.decoder.walk({}, noise)["x"]
    tokens = stack.functions.shelf.values("x", drawn.value.flatten().long())
    assert tokens.dtype == torch.long and tokens.shape == (2 * N, LONGEST)
    assert drawn.log_prob.isfinite().all() and torch.equal(drawn.log_prob, again.log_prob)
    assert ((tokens == PAD) | real(tokens)).all() and len(tokens.unique(dim=0)) > N


def test_a_text_visited_token_by_token() -> None:
    """``x`` is a dict of tokens, and a token after END does not exist."""
    net, x = text()
    data = {f"x{t}": x[:, t] for t in range(LONGEST)}

    def encode(data: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return net.encode(torch.stack([data[f"x{t}"] for t in range(LONGEST)], 1))

    def generate(visit: Any) -> None:
        z = visit("z", Normal(torch.zeros(D), 1.0))
        h = net.start(z).tanh().unsqueeze(0)
        state, last = (h, torch.zeros_like(h)), torch.full((visit.rows,), WORDS)
        goes_on = torch.ones(visit.rows, dtype=torch.bool)
        for t in range(LONGEST):
            out, state = net.writer(net.embed(last).unsqueeze(1), state)
            last = visit(f"x{t}", hvae.masked(Categorical(logits=net.out(out[:, 0])), goes_on))
            goes_on = goes_on & (last != END)

    def author(values: Any, i: int) -> Tensor:
        z = values["z"]
        return token_by_token(net, x[i], z) + gaussian(z, torch.zeros(D), 1.0) - gaussian(z, *read_alone(net, x[i]))

    assert error_of(hvae.Model(infer_z, generate, encode=encode), data, author) <= 2.6e-6


class Causal(nn.Conv2d):
    """A convolution of pixels before (mask A), or up to (B), its own in raster order: van den Oord et al. 2016."""

    def __init__(self, kind: str, n_in: int, n_out: int) -> None:
        super().__init__(n_in, n_out, 3, padding=1)
        mask = torch.ones(3, 3)
        mask[1, 1 + (kind == "B") :] = 0
        mask[2] = 0
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.weight * self.mask, self.bias, padding=1)


class PixelVAE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Causal("A", 1, 4), Causal("B", 4, 1)
        self.of_z, self.statistics = nn.Linear(D, 4), nn.Linear(16, 2 * D)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_scale = self.statistics(x.flatten(1)).chunk(2, -1)
        return mean, log_scale.exp()

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.second((self.first(x) + self.of_z(z)[:, :, None, None]).relu())


def test_b_pixels_of_a_pixelcnn() -> None:
    torch.manual_seed(0)
    net, x = PixelVAE(), (torch.rand(N, 1, 4, 4) > 0.5).float()

    def generate(visit: Any) -> None:
        z = visit("z", Normal(torch.zeros(D), 1.0))

        def sample() -> Tensor:
            image = torch.zeros(visit.rows, 1, 4, 4)
            for row in range(4):
                for column in range(4):
                    image[:, :, row, column] = Bernoulli(logits=net(image, z)[:, :, row, column]).sample()
            return image

        visit("x", hvae.law(lambda x: Bernoulli(logits=net(x, z)).log_prob(x).sum((1, 2, 3)), sample))

    def author(values: Any, i: int) -> Tensor:
        """Pixel by pixel; those to come are hidden by grey."""
        z, total = values["z"], torch.zeros(())
        for pixel in range(16):
            seen = x[i].flatten().clone()
            seen[pixel:] = 0.5
            logit = net(seen.view(1, 1, 4, 4), z.unsqueeze(0)).flatten()[pixel]
            total = total + coins(x[i].flatten()[pixel], logit)
        mean, scale = (each[0] for each in net.encode(x[i : i + 1]))
        return total + gaussian(z, torch.zeros(D), 1.0) - gaussian(z, mean, scale)

    assert error_of(hvae.Model(infer_z, generate, encode=net.encode), {"x": x}, author) <= 6.0e-6


class VRNN(nn.Module):
    """Chung et al. 2015: z_t and x_t in turn, all that was before in the state of a GRU."""

    def __init__(self, width: int = 2, hidden: int = 5) -> None:
        super().__init__()
        self.prior, self.posterior = nn.Linear(hidden, 2 * D), nn.Linear(hidden + width, 2 * D)
        self.decoder, self.cell = nn.Linear(hidden + D, 2 * width), nn.GRUCell(width + D, hidden)


STEPS = 3


def halves(statistics: Tensor) -> tuple[Tensor, Tensor]:
    mean, log_scale = statistics.chunk(2, -1)
    return mean, (0.5 * log_scale).exp()


def test_p_a_series_with_latents_in_between() -> None:
    torch.manual_seed(0)
    net = VRNN()
    data = {f"x{t}": 0.5 * torch.randn(N, 2) for t in range(STEPS)}

    def infer(visit: Any) -> None:
        h = torch.zeros(visit.rows, 5)
        for t in range(STEPS):
            x = visit.code[f"x{t}"]
            z = visit(f"z{t}", Normal(*halves(net.posterior(torch.cat([h, x], -1)))))
            h = net.cell(torch.cat([x, z], -1), h)

    def generate(visit: Any) -> None:
        h = torch.zeros(visit.rows, 5)
        for t in range(STEPS):
            z = visit(f"z{t}", Normal(*halves(net.prior(h))))
            x = visit(f"x{t}", Normal(*halves(net.decoder(torch.cat([h, z], -1)))))
            h = net.cell(torch.cat([x, z], -1), h)

    def author(values: Any, i: int) -> Tensor:
        h, total = torch.zeros(5), torch.zeros(())
        for t in range(STEPS):
            x, z = data[f"x{t}"][i], values[f"z{t}"]
            total = total - gaussian(z, *halves(net.posterior(torch.cat([h, x]))))
            total = total + gaussian(z, *halves(net.prior(h)))
            total = total + gaussian(x, *halves(net.decoder(torch.cat([h, z]))))
            h = net.cell(torch.cat([x, z]).unsqueeze(0), h.unsqueeze(0))[0]
        return total

    model = hvae.Model(infer, generate)
    assert error_of(model, data, author) <= 3.3e-6

    stack = stacked(model, data)  # a series is drawn step by step
    noise = hvae.noise(stack.decoder.noise_specs(), 1, N, seed=0, purpose="test")
    with torch.no_grad():
        drawn = stack.decoder.walk({}, noise)
        numbers = drawn["x"].value
        again = stack.decoder.walk({name: site.value for name, site in drawn.items()}, {})
    assert stack.functions.shelf.values("x2", numbers.flatten().long()).shape == (N, 2)
    torch.testing.assert_close(drawn["x"].log_prob, again["x"].log_prob)
    assert weighed(stack).log_weight.isfinite().all()
