"""From a model of scvi-tools: counts, their batches and covariates, and the size of each library.

    q       z ~ N(mean(x), var(x)); where the library size is latent also library ~ N(mean(x), var(x))
    p       z ~ N(0, I); library ~ N(mean, var) of its batch; x ~ the model's gene_likelihood
    context what both are given: batch, label, covariates, and log library size or size factor where observed

Lopez et al. 2018. With `use_observed_lib_size=True`, the default of scvi-tools, the total count of a cell enters p as
if known beforehand. So it is part of the context, and every information is conditional on it.

For `latent_distribution="ln"` z is the Gaussian before the softmax, as in the loss of scvi-tools. (Its
`get_marginal_ll` scores the value after the softmax there, which is no likelihood.)
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, Poisson, constraints

from hvae.errors import ConfigError
from hvae.extras import need
from hvae.foreign.model import Model

READ = {"X": "x", "batch": "batch", "labels": "label", "extra_continuous_covs": "continuous",
        "extra_categorical_covs": "categorical", "size_factor": "size_factor"}  # fmt: skip
"""name in a batch of scvi-tools -> in the context"""


class Counts(Distribution):
    """Counts of genes ``[rows, genes]``, whose distribution in scvi-tools has no shape of its own.

    ``log_prob`` is that of scvi-tools' (zero-inflated) negative binomial with mean ``mu`` and inverse dispersion
    ``theta``, each gene a term. It is computed in float64: in float32 the differences of log-gammas lose up to a nat
    over 2000 genes that are close to Poisson.

    >>> from scvi.distributions import NegativeBinomial
    >>> counts = Counts(NegativeBinomial(mu=torch.full((5, 3), 2.0), theta=torch.ones(3)))
    >>> counts.batch_shape, counts.log_prob(torch.zeros(5, 3)).shape
    (torch.Size([5, 3]), torch.Size([5, 3]))
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 - torch declares it so
    support = constraints.nonnegative_integer
    has_rsample = False

    def __init__(self, law: Any) -> None:
        self.law, self.mu = law, law.mu
        super().__init__(law.mu.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        mean: Tensor = self.law.mean
        return mean

    def log_prob(self, value: Tensor) -> Tensor:
        wide = {name: getattr(self.law, name).double() for name in ("mu", "theta")}
        if hasattr(self.law, "zi_logits"):
            wide["zi_logits"] = self.law.zi_logits.double()
        terms: Tensor = type(self.law)(**wide).log_prob(value.double())
        return terms

    def sample(self, sample_shape: Any = ()) -> Tensor:
        # scvi-tools draws in inference mode; outside it only a copy may be used freely
        drawn: Tensor = self.law.sample(sample_shape)
        return drawn.clone()


def from_scvi(model: Any) -> Model:
    """A trained `scvi.model.SCVI` or `LinearSCVI`, ready for `hvae.diagnose`.

    Its data are an AnnData with the columns of the model's own, as in ``hvae.diagnose(hvae.from_scvi(model), adata)``,
    or the tensors of `scvi_data`.

    Raises ConfigError for other models of scvi-tools and for minified data, MissingExtraError where scvi-tools is not
    installed.

    >>> from hvae import from_scvi, scvi_data
    >>> import scvi
    >>> cells = scvi.data.synthetic_iid(batch_size=20, n_genes=12)
    >>> scvi.model.SCVI.setup_anndata(cells, batch_key="batch")
    >>> trained = scvi.model.SCVI(cells, n_latent=3)  # and trained.train()
    >>> model = from_scvi(trained)
    >>> x, context = scvi_data(trained, indices=range(10))
    >>> x.shape, sorted(context)
    (torch.Size([10, 12]), ['batch', 'library'])
    """
    need("scvi", "from_scvi needs")
    _check(model)
    net = model.module

    def encode(x: Tensor, context: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        if not isinstance(context, dict) or "batch" not in context:
            raise ConfigError(
                "a model of scvi-tools is given the batch and the library size of each cell; hand over both parts of "
                "x, context = hvae.scvi_data(model, adata)."
            )
        # its encoder draws a z that is not used here; the state of the user's generator stays as it was
        with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            found = net.inference(
                x=x, batch_index=context["batch"], cont_covs=context.get("continuous"),
                cat_covs=context.get("categorical"),
            )  # fmt: skip
        code = {"mean": found["qz"].loc, "scale": found["qz"].scale}
        if found["ql"] is not None:
            code |= {"library_mean": found["ql"].loc, "library_scale": found["ql"].scale}
        return code

    def infer(visit: Any) -> None:
        visit("z", Independent(Normal(visit.code["mean"], visit.code["scale"]), 1))
        if not net.use_observed_lib_size:
            visit("library", Independent(Normal(visit.code["library_mean"], visit.code["library_scale"]), 1))

    def generate(visit: Any) -> None:
        context = visit.context
        like = next(net.parameters())
        z = visit("z", Independent(Normal(like.new_zeros(net.n_latent), like.new_ones(net.n_latent)), 1))
        library = context.get("library")
        if not net.use_observed_lib_size:
            mean, variance = net._compute_local_library_params(context["batch"])
            library = visit("library", Independent(Normal(mean, variance.sqrt()), 1))
        factor = context.get("size_factor")
        outputs = net.generative(
            z=net.z_encoder.z_transformation(z), library=library, batch_index=context["batch"], y=context.get("label"),
            cont_covs=context.get("continuous"), cat_covs=context.get("categorical"),
            size_factor=None if factor is None else factor.log(),
        )  # fmt: skip
        visit("x", _observed(outputs["px"]))

    def read(cells: Any) -> tuple[Any, Any]:
        return scvi_data(model, cells) if hasattr(cells, "obs") else (cells, None)

    return Model(infer, generate, encode=encode, module=_used(net), read=read)


def scvi_data(model: Any, adata: Any = None, indices: Sequence[int] | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """``(x, context)`` of cells as the model reads them: counts ``[n, genes]``, and what p and q are given of each.

    ``adata`` is by default what the model was trained with; ``indices`` are cells of it, by default all. The context
    holds ``batch``, ``label``, ``continuous``, ``categorical``, ``size_factor``, ``library`` (the log of the total
    count), ``[n, .]``, those that the model uses. Raises ConfigError where a model of counts has numbers that are none.
    """
    need("scvi", "scvi_data needs")
    _check(model)
    adata = model._validate_anndata(adata)
    loader = model._make_data_loader(adata=adata, indices=indices, shuffle=False)
    batches = [{name: tensor for name, tensor in batch.items() if tensor is not None} for batch in loader]
    net = model.module
    device = next(net.parameters()).device
    read = {READ[name]: torch.cat([batch[name] for batch in batches]).to(device) for name in batches[0] if name in READ}
    x = read.pop("x")
    if net.gene_likelihood != "normal":
        _check_counts(x, net.gene_likelihood)
    if net.use_observed_lib_size and not net.use_size_factor_key:
        read["library"] = x.sum(1, keepdim=True).log()
    if net.dispersion != "gene-label":
        read.pop("label", None)
    if not net.use_size_factor_key:
        read.pop("size_factor", None)
    return x, read


def _used(net: Any) -> nn.ModuleDict:
    """The nets that q and p call: where the library size is observed its encoder is never trained, and no part."""
    names = ["z_encoder", "decoder"]
    if not net.use_observed_lib_size:
        names.append("l_encoder")
    if net.batch_representation == "embedding":
        names.append("embeddings_dict")
    return nn.ModuleDict({name: getattr(net, name) for name in names})


def _observed(law: Any) -> Distribution:
    """p(x|z, ...) over ``[rows, genes]``."""
    if hasattr(law, "mu") and hasattr(law, "theta"):
        return Counts(law)
    if hasattr(law, "rate"):
        return Poisson(law.rate, validate_args=False)
    return Normal(law.loc, law.scale, validate_args=False)


def _check(model: Any) -> None:
    from scvi.model import SCVI, LinearSCVI
    from scvi.module import VAE

    name = type(model).__name__
    if not isinstance(model, SCVI | LinearSCVI):
        raise ConfigError(
            f"{name} is not measured: from_scvi reads SCVI and LinearSCVI; visit the latents of other models with "
            "hvae.Model."
        )
    if model.module is None:
        raise ConfigError(f"this {name} has no nets before it is trained; call its train() first.")
    changed = [part for part in ("inference", "generative", "loss") if not _is_that_of(model.module, VAE, part)]
    if changed:
        raise ConfigError(
            f"{type(model.module).__name__} changes {' and '.join(changed)} of scvi's VAE, so its q and p are not "
            "known; visit its latents with hvae.Model."
        )
    if model.minified_data_type is not None:
        raise ConfigError(f"this {name} holds minified data, which have no counts; load it with the full AnnData.")


def _is_that_of(module: Any, kind: type, part: str) -> bool:
    return getattr(type(module), part) is getattr(kind, part)


def _check_counts(x: Tensor, likelihood: str) -> None:
    off = (x < 0) | (x != x.round())
    if off.any():
        cell, gene = (int(place) for place in off.nonzero()[0])
        raise ConfigError(
            f"gene_likelihood={likelihood!r} is of counts, and cell {cell} has {float(x[cell, gene]):.4g} of gene "
            f"{gene}; register the layer of raw counts: setup_anndata(adata, layer='counts')."
        )
