"""The cost of each layer, and its distance from fixed distributions; per datum, nats.

- rate: ``log q(z_l|·) - log p(z_l|·)`` along the draws. Bottom-up a difference of informations, negative
  for a healthy layer that passes everything on.
- kl_standard: ``E KL(q(z_l|·) ‖ N(0, I))``, the lecture's quantity. Below the top a layer's scale is
  arbitrary, so it is read at the top. Without closed form it is the mean log-ratio along the draws.
"""

from contextlib import suppress

from hvae.diagnostics.draws import divergence, per_datum
from hvae.errors import NotMeasuredError
from hvae.evidence import Evidence
from hvae.families import has_unit_kl, unit_kl
from hvae.network import Site
from hvae.numerics import FloatArray


def rates(evidence: Evidence, name: str) -> dict[str, FloatArray]:
    """Arrays ``[n]`` per layer, and ``[D, n]`` per unit where p and q factorise; means over the draws of each datum.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> {name: array.shape for name, array in rates(linear_stack(1.0, "best", seed=0).evidence(5), "z1").items()}
    {'rate_nats': (6,), 'kl_standard_nats': (6,), 'rate_unit_nats': (4, 6), 'kl_standard_unit_nats': (4, 6)}
    """
    n = evidence.p["x"].value.shape[1]
    site, prior = evidence.q[name], evidence.p[name]
    terms = {"rate_nats": per_datum(evidence.rate(name), n)}
    standard = standard_of(site)
    if standard is not None:
        terms["kl_standard_nats"] = per_datum(divergence(site, standard), n)
    if site.family.factorised and prior.family.factorised:
        terms["rate_unit_nats"] = per_datum(evidence.unit_rate(name), n)
        if standard is not None and has_unit_kl(site.distribution, standard.distribution):
            terms["kl_standard_unit_nats"] = per_datum(
                site.family.per_unit(unit_kl(site.distribution, standard.distribution)), n
            )
        if evidence.closed_form(name) and has_unit_kl(site.distribution, prior.distribution):
            terms["kl_prior_unit_nats"] = per_datum(evidence.unit_kl(name), n)
    return terms


def standard_of(site: Site) -> Site | None:
    """N(0, I), or fair units, for the value of a layer; None for positive and whole numbers, which have none."""
    with suppress(NotMeasuredError):
        kin = site.family.kin
        return Site(site.value, kin.standard(site.value), kin)
    return None
