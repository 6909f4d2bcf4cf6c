"""From a model and a guide of Pyro: `model(x)` and `guide(x)` as SVI trains them, with names joined by site name.

Both are run as they are. Where they say `pyro.sample`, a handler visits the site instead:

    guide   a latent site            visit(name, fn), its distribution under q
    model   a latent site            visit(name, fn), its distribution under p
    model   a site with obs=x        visit("x", fn); of a dict x, visit(key, fn)

The model is given a stand-in for x, of which shape, type and device can be read, and nothing else. So p cannot see x.
The plate over the data is the axis of the rows: any number of rows is in a call, so its size has to follow x, as in
`pyro.plate("data", len(x))`. Scales (`poutine.scale`, a subsampled plate) weigh a site while it is trained. They are
not part of its distribution, and are left out. Latents that are summed out (enumeration) are out of scope.
"""

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any

from torch import nn
from torch.distributions import Distribution, Independent

from hvae.errors import ConfigError
from hvae.extras import need
from hvae.foreign.laws import masked
from hvae.foreign.model import Model
from hvae.foreign.withheld import Withheld, withheld


def from_pyro(model: Callable[..., Any], guide: Callable[..., Any], *, module: nn.Module | None = None) -> Model:
    """A model of Pyro and its amortised guide, ready for `hvae.diagnose`.

    They are called as ``model(x)`` and ``guide(x)``; a dict x gives keywords, ``model(**x)``. A context follows:
    ``model(x, context)``, a tuple in several arguments, a dict as keywords. ``module`` is the nets, which are put in
    evaluation mode; by default those that ``model`` and ``guide`` are, or are methods of.

    Raises ConfigError, when it is walked, for auxiliary and Delta sites, factors, one latent for all data, plates that
    draw a subsample or have a fixed size, latents without a site in the guide, and observations that are not x.
    Raises MissingExtraError where Pyro is not installed.

    >>> from torch import nn
    >>> from hvae import from_pyro
    >>> import torch, pyro, pyro.distributions as dist
    >>> decoder, encoder = nn.Linear(2, 6), nn.Linear(6, 2)
    >>> def model(x):
    ...     with pyro.plate("data", len(x)):
    ...         z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    ...         pyro.sample("obs", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x)
    >>> def guide(x):
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("z", dist.Normal(encoder(x), 0.5).to_event(1))
    >>> foreign = from_pyro(model, guide, module=nn.ModuleList([decoder, encoder]))
    """
    need("pyro", "from_pyro needs")
    _refuse_autoguide(guide)
    latents: set[str] = set()
    shapes: dict[str, Any] = {}

    def encode(x: Any, *_: Any) -> Any:
        shapes["x"] = {key: leaf[:0] for key, leaf in x.items()} if isinstance(x, Mapping) else x[:0]
        return x

    def infer(visit: Any) -> None:
        _run(guide, visit.code, visit.context, _Site(visit, latents, in_guide=True))

    def generate(visit: Any) -> None:
        like = shapes["x"]
        if isinstance(like, Mapping):
            x: Any = {key: withheld(leaf, visit.rows, key) for key, leaf in like.items()}
        else:
            x = withheld(like, visit.rows, "x")
        _run(model, x, visit.context, _Site(visit, latents, in_guide=False))

    return Model(infer, generate, encode=encode, module=module or _nets(model, guide))


class _Site:
    """What becomes of one `pyro.sample`: the handler's answer to its message."""

    def __init__(self, visit: Any, latents: set[str], *, in_guide: bool) -> None:
        self.visit, self.latents, self.in_guide = visit, latents, in_guide
        self.seen: dict[str, str] = {}
        """name that was visited -> the observed site that visited it"""

    def __call__(self, message: dict[str, Any]) -> None:
        name, fn = message["name"], message["fn"]
        if type(fn).__name__ == "_Subsample":
            _refuse_subsample(name, fn, message["value"])
            return
        if message["infer"].get("_deterministic"):
            return
        if message["is_observed"] and self._is_condition(fn, message["value"]):
            return
        self._refuse(name, fn, message)
        visited = name
        if message["is_observed"]:
            visited = self._observed(name, message["value"])
        elif self.in_guide:
            self.latents.add(name)
        elif name not in self.latents:
            raise ConfigError(
                f"{name} is latent in the model, and the guide has no site of that name; give it one (a latent that is "
                "summed out by enumeration has no draws to measure)."
            )
        message["value"] = self.visit(visited, _plain(name, self._with_rows(name, fn, message), message["mask"]))
        message["done"] = True

    def _refuse(self, name: str, fn: Any, message: dict[str, Any]) -> None:
        if type(fn).__name__ == "Unit":
            raise ConfigError(f"{name} is a factor, which has no distribution; say it as an observed site.")
        if message["infer"].get("is_auxiliary"):
            raise ConfigError(
                f"{name} is auxiliary in the guide, so the latents that are made of it have no density of their own; "
                "sample them from their distributions."
            )
        base = _innermost(fn)
        if type(base).__name__ == "Delta":
            raise ConfigError(
                f"{name} has no density under {'q' if self.in_guide else 'p'} (Delta): a deterministic code or a "
                "learned constant has no rate and no likelihood; use pyro.deterministic, or pyro.param for a constant."
            )
        if not isinstance(base, Distribution):
            raise ConfigError(f"{name} is drawn by a {type(base).__name__}; take a distribution of pyro.distributions.")
        if message["is_observed"] and self.in_guide:
            raise ConfigError(f"{name} is observed in the guide; observe it in the model.")

    def _is_condition(self, fn: Any, value: Any) -> bool:
        """Whether a site is one for all data and held at a value (`poutine.condition`); all else is given it."""
        if type(fn).__name__ == "Unit" or isinstance(value, Withheld):
            return False
        return bool(fn.batch_shape[:1] != (self.visit.rows,))

    def _observed(self, site: str, value: Any) -> str:
        """The name to visit: which part of x a site observes."""
        if not isinstance(value, Withheld):
            raise ConfigError(
                f"{site} observes a tensor that is no part of x; hand it over in a dict x, as an argument of model and "
                "guide."
            )
        part = value.part
        if value.moved:
            raise ConfigError(
                f"{site} observes {part} after {value.moved}; hand over x in the shape that the site observes, or a "
                "dict with one entry for each observed site."
            )
        if part in self.seen:
            raise ConfigError(
                f"{site} and {self.seen[part]} observe the same {part}; hand over a dict with one entry for each "
                "observed site."
            )
        self.seen[part] = site
        return part

    def _with_rows(self, name: str, fn: Any, message: dict[str, Any]) -> Any:
        """The distribution, where its first axis is the rows or, in the model, where it has none."""
        rows, batch = self.visit.rows, fn.batch_shape
        if batch[:1] == (rows,):
            return fn
        plates = [frame for frame in message["cond_indep_stack"] if frame.vectorized]
        over_data = [frame for frame in plates if frame.size == rows]
        if over_data and len(batch) > 1:
            raise ConfigError(
                f"{name}: the plate {over_data[0].name!r} over the data is not the leftmost axis of {tuple(batch)}; "
                f"declare it with dim={-len(batch)}."
            )
        if plates and batch:
            raise ConfigError(
                f"{name}: no plate has the size of the data ({', '.join(f'{p.name!r}: {p.size}' for p in plates)}, and "
                f"{rows} rows are in this call); write pyro.plate('data', len(x))."
            )
        if self.in_guide or message["is_observed"]:
            raise ConfigError(
                f"{name} is one for all data: its distribution has no row axis and no datum has an evidence of its "
                "own; hold it at a value in both (poutine.condition), or draw it within the plate over the data."
            )
        return fn


def _run(function: Callable[..., Any], x: Any, context: Any, site: _Site) -> None:
    """One call under the handler."""
    from pyro.poutine.messenger import Messenger

    class Visiting(Messenger):  # type: ignore[misc]  # without Pyro nothing is known of it
        def _pyro_sample(self, message: dict[str, Any]) -> None:
            site(message)

    positional: list[Any] = [] if isinstance(x, Mapping) else [x]
    keywords = dict(x) if isinstance(x, Mapping) else {}
    if isinstance(context, Mapping):
        keywords |= context
    elif isinstance(context, tuple | list):
        positional += context
    elif context is not None:
        positional.append(context)
    try:
        with Visiting():
            function(*positional, **keywords)
    except ValueError as error:
        if isinstance(error, ConfigError) or "Shape mismatch inside plate" not in str(error):
            raise
        raise ConfigError(
            f"{str(error).splitlines()[0]}: a plate has a size that does not follow x; write "
            "pyro.plate('data', len(x))."
        ) from error


def _refuse_autoguide(guide: Any) -> None:
    from pyro.infer.autoguide import AutoGuide

    if isinstance(guide, AutoGuide):
        raise ConfigError(
            f"{type(guide).__name__} fits its parameters to one set of data, and says nothing of a new x; write a "
            "guide(x) whose distributions are computed from x."
        )


def _refuse_subsample(name: str, fn: Any, indices: Any) -> None:
    if indices is None and fn.subsample_size is not None and fn.subsample_size < fn.size:
        raise ConfigError(
            f"the plate {name!r} draws a subsample of {fn.subsample_size} of {fn.size}, so its rows are not those of "
            f"x; write pyro.plate({name!r}, len(x)), or hand it the batch: subsample=x."
        )


def _innermost(fn: Any) -> Any:
    while type(fn).__name__ in ("Independent", "MaskedDistribution", "ExpandedDistribution"):
        fn = fn.base_dist
    return fn


def _plain(name: str, fn: Any, mask: Any) -> Distribution:
    """The distribution with the masks of Pyro as masks of the house."""
    masks = [] if mask is None else [mask]
    while type(fn).__name__ == "MaskedDistribution":
        masks.append(fn._mask)
        fn = fn.base_dist
    found = _of_torch(fn)
    for one in masks:
        if one is False:
            raise ConfigError(f"{name} is masked altogether (mask=False), so nothing scores it; leave the site out.")
        if one is True:
            continue
        found = masked(found, one.expand(found.batch_shape))
    return found


def _of_torch(law: Distribution) -> Distribution:
    """The distribution of torch that one of Pyro is: only of these is it known that each element has its own term."""
    if isinstance(law, Independent):
        return Independent(_of_torch(law.base_dist), law.reinterpreted_batch_ndims, validate_args=False)
    own: Any = type(law)
    kind: Any = next(kind for kind in own.__mro__ if kind.__module__.startswith("torch.distributions"))
    if kind is own or kind is Distribution or kind.log_prob is not own.log_prob:
        return law
    found = copy(law)
    found.__class__ = kind
    return found


def _nets(*functions: Any) -> nn.Module | None:
    """The modules that functions are, or are methods of."""
    owners = [getattr(function, "__self__", function) for function in functions]
    found = list({id(owner): owner for owner in owners if isinstance(owner, nn.Module)}.values())
    if len(found) < 2:
        return found[0] if found else None
    return nn.ModuleList(found)
