"""Distributions of torch, one of every class, with parameters that differ between rows."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import (
    AffineTransform,
    Bernoulli,
    Beta,
    Binomial,
    Categorical,
    Cauchy,
    Chi2,
    ContinuousBernoulli,
    Dirichlet,
    Distribution,
    Exponential,
    FisherSnedecor,
    Gamma,
    GeneralizedPareto,
    Geometric,
    Gumbel,
    HalfCauchy,
    HalfNormal,
    Independent,
    InverseGamma,
    Kumaraswamy,
    Laplace,
    LKJCholesky,
    LogisticNormal,
    LogNormal,
    LowRankMultivariateNormal,
    MixtureSameFamily,
    Multinomial,
    MultivariateNormal,
    NegativeBinomial,
    Normal,
    OneHotCategorical,
    OneHotCategoricalStraightThrough,
    Pareto,
    Poisson,
    RelaxedBernoulli,
    RelaxedOneHotCategorical,
    SigmoidTransform,
    StudentT,
    TransformedDistribution,
    Uniform,
    VonMises,
    Weibull,
    Wishart,
)

ROWS, D = 64, 3
Zoo = dict[str, Callable[[slice | int], Distribution]]
"""name -> the distribution of some rows ``[rows, ...]``, or of one without row axis"""


def table(*event: int) -> Tensor:
    return torch.randn(ROWS, *event, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


REAL, OTHER, SQUARE = table(D), table(D).flip(0), table(D, D)
POSITIVE, MIDDLE = REAL.exp(), REAL.sigmoid()
TALL, WIDE = table(2, D), table(D, 2)
ROOT = SQUARE.tril(-1) + torch.eye(D, dtype=torch.float64) * (1 + POSITIVE.unsqueeze(-1))
HEAT = torch.tensor(0.7, dtype=torch.float64)

MAPPED: Zoo = {
    "Normal": lambda at: Normal(REAL[at], POSITIVE[at]),
    "Normal with one scale": lambda at: Normal(REAL[at], 0.5),
    "Independent": lambda at: Independent(Normal(REAL[at], POSITIVE[at]), 1),
    "Laplace": lambda at: Laplace(REAL[at], POSITIVE[at]),
    "Cauchy": lambda at: Cauchy(REAL[at], POSITIVE[at]),
    "Exponential": lambda at: Exponential(POSITIVE[at]),
    "Uniform": lambda at: Uniform(REAL[at], REAL[at] + POSITIVE[at]),
    "HalfNormal": lambda at: HalfNormal(POSITIVE[at]),
    "HalfCauchy": lambda at: HalfCauchy(POSITIVE[at]),
    "Gumbel": lambda at: Gumbel(REAL[at], POSITIVE[at]),
    "LogNormal": lambda at: LogNormal(REAL[at], 0.3 * MIDDLE[at]),
    "Weibull": lambda at: Weibull(POSITIVE[at], 1.5 + MIDDLE[at]),
    "Pareto": lambda at: Pareto(POSITIVE[at], 9 + MIDDLE[at]),
    "Kumaraswamy": lambda at: Kumaraswamy(1 + MIDDLE[at], 1 + POSITIVE[at]),
    "ContinuousBernoulli": lambda at: ContinuousBernoulli(MIDDLE[at]),
    "GeneralizedPareto": lambda at: GeneralizedPareto(  # torch scores it in float32 only
        REAL[at].float(), POSITIVE[at].float(), 0.1 * MIDDLE[at].float()
    ),
    "Bernoulli": lambda at: Bernoulli(logits=REAL[at]),
    "Bernoulli by probabilities": lambda at: Bernoulli(MIDDLE[at]),
    "OneHotCategorical": lambda at: OneHotCategorical(logits=REAL[at]),
    "OneHotCategorical by probabilities": lambda at: OneHotCategorical(REAL[at].softmax(-1)),
    "two OneHotCategorical": lambda at: OneHotCategorical(logits=TALL[at]),
    "OneHotCategoricalStraightThrough": lambda at: OneHotCategoricalStraightThrough(logits=REAL[at]),
    "Categorical": lambda at: Categorical(logits=TALL[at]),
    "MultivariateNormal": lambda at: MultivariateNormal(REAL[at], scale_tril=ROOT[at]),
    "MultivariateNormal by covariance": lambda at: MultivariateNormal(REAL[at], ROOT[at] @ ROOT[at].mT),
    "two MultivariateNormal": lambda at: MultivariateNormal(TALL[at], scale_tril=ROOT[at].unsqueeze(-3)),
    "LowRankMultivariateNormal": lambda at: LowRankMultivariateNormal(REAL[at], WIDE[at], POSITIVE[at]),
    "affine Normal": lambda at: TransformedDistribution(Normal(REAL[at], 0.5), AffineTransform(1.0, -2.0)),
    "sigmoid Normal": lambda at: TransformedDistribution(Normal(REAL[at], 0.5), SigmoidTransform()),
    "LogisticNormal": lambda at: LogisticNormal(REAL[at], 0.3 * MIDDLE[at]),
    "a mixture a row": lambda at: MixtureSameFamily(
        Categorical(logits=TALL[at].sum(-1)), Independent(Normal(TALL[at], 0.5), 1)
    ),
    "a mixture a unit": lambda at: MixtureSameFamily(Categorical(logits=WIDE[at]), Normal(WIDE[at].flip(-1), 0.5)),
    "a mixture of Laplace": lambda at: MixtureSameFamily(Categorical(logits=WIDE[at]), Laplace(WIDE[at], 0.5)),
    "a mixture of logistic": lambda at: MixtureSameFamily(
        Categorical(logits=WIDE[at]), TransformedDistribution(Uniform(0 * WIDE[at], 1.0), SigmoidTransform().inv)
    ),
    "a mixture of Bernoulli": lambda at: MixtureSameFamily(
        Categorical(logits=TALL[at].sum(-1)), Independent(Bernoulli(logits=TALL[at]), 1)
    ),
    "a mixture of full covariances": lambda at: MixtureSameFamily(
        Categorical(logits=TALL[at].sum(-1)), MultivariateNormal(TALL[at], scale_tril=ROOT[at].unsqueeze(-3))
    ),
}
"""drawn by a map of the noise of each row"""

SEEDED: Zoo = {
    "Gamma": lambda at: Gamma(1 + POSITIVE[at], 2 * MIDDLE[at]),
    "Chi2": lambda at: Chi2(1 + POSITIVE[at]),
    "StudentT": lambda at: StudentT(9 + POSITIVE[at], REAL[at], POSITIVE[at]),
    "Beta": lambda at: Beta(1 + POSITIVE[at], 1 + MIDDLE[at]),
    "Dirichlet": lambda at: Dirichlet(1 + POSITIVE[at]),
    "two Dirichlet": lambda at: Dirichlet(1 + TALL[at].exp()),
    "InverseGamma": lambda at: InverseGamma(9 + MIDDLE[at], POSITIVE[at]),
    "FisherSnedecor": lambda at: FisherSnedecor(9 + POSITIVE[at], 20 + POSITIVE[at]),
    "VonMises": lambda at: VonMises(MIDDLE[at], 2 + POSITIVE[at]),
    "Poisson": lambda at: Poisson(POSITIVE[at]),
    "NegativeBinomial": lambda at: NegativeBinomial(1 + POSITIVE[at], logits=-1 - MIDDLE[at]),
    "Binomial": lambda at: Binomial(7, MIDDLE[at]),
    "Geometric": lambda at: Geometric(MIDDLE[at]),
    "Multinomial": lambda at: Multinomial(5, logits=REAL[at]),
    "RelaxedBernoulli": lambda at: RelaxedBernoulli(HEAT, logits=REAL[at]),
    "RelaxedOneHotCategorical": lambda at: RelaxedOneHotCategorical(HEAT, logits=REAL[at]),
    "Wishart": lambda at: Wishart(9 + MIDDLE[at][..., 0], scale_tril=0.2 * ROOT[at]),
    "LKJCholesky": lambda at: LKJCholesky(D, 1 + MIDDLE[at][..., 0]),
    "a mixture of Beta": lambda at: MixtureSameFamily(
        Categorical(logits=TALL[at].sum(-1)), Independent(Beta(1 + TALL[at].exp(), 2.0), 1)
    ),
    "exponential of Gamma": lambda at: TransformedDistribution(Gamma(1 + POSITIVE[at], 2.0), AffineTransform(1.0, 2.0)),
}
"""drawn under a seed made of the noise of the block"""
