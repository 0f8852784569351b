"""The spec's default tenants, and an independent re-statement of the model used as a second method (slow, scalar)."""

import numpy as np
from scipy.optimize import brentq

from marketenvs.markets.coalition_trading.values import Curves, make_curves

ARRIVALS = 1e4 / 2048  # packets/s: r_min over packet length
COST, MONEY = 0.16, 4.0


def need(kind, rate=625.0):
    """PRBs for half satisfaction of 50 users: eMBB, URLLC, mMTC of Table I."""
    return {
        "embb": 50 * 500 / rate,
        "urllc": 50 * 2048 * (ARRIVALS + 100) / (1000 * rate),
        "mmtc": 50 * 15 / rate,
    }[kind]


def tenants(reputation, kinds, rate=625.0, steepness=6.0) -> Curves:
    q = np.array([need(k, rate) for k in kinds])
    delay = np.array([float(k == "urllc") for k in kinds])
    return make_curves(MONEY * np.array(reputation) * q, q, steepness, ARRIVALS * 0.01, delay)


def default(rate=625.0) -> Curves:
    return tenants((0.9, 0.6, 0.8), ("embb", "embb", "urllc"), rate)


class Tenant:
    """One tenant written straight from the paper's symbols; derivative by hand, roots by Brent, no shared code."""

    def __init__(self, reputation, kind, rate=625.0, steepness=6.0):
        self.kind, self.eta, self.q = kind, steepness, need(kind, rate)
        self.a_total = MONEY * reputation * self.q
        self.per_prb = 1000 * rate / (2048 * 50)
        knee = self.q if kind != "urllc" else self._inflection()
        self.w_hat = brentq(lambda w: self.slope(w) * w - self.g(w), knee * (1 + 1e-9), 20 * self.q, xtol=1e-14)
        self.p_hat = self.slope(self.w_hat)

    def _inflection(self):
        grid = np.linspace(ARRIVALS / self.per_prb * 1.001, 5 * self.q, 200_001)
        return grid[np.argmax([self.slope(w) for w in grid[::200]]) * 200]

    @staticmethod
    def s(z):
        return 1 / (1 + np.exp(-z)) if z > -700 else 0.0

    def g(self, w):
        if self.kind != "urllc":
            floor = self.s(-self.eta)
            return self.a_total * (self.s(self.eta * (w / self.q - 1)) - floor) / (1 - floor)
        x = self.per_prb * w - ARRIVALS
        return 0.0 if x <= 0 else self.a_total * self.s(self.eta * (1 - 1 / (0.01 * x))) / self.s(self.eta)

    def slope(self, w):
        if self.kind != "urllc":
            v = self.s(self.eta * (w / self.q - 1))
            return self.a_total * v * (1 - v) * self.eta / self.q / (1 - self.s(-self.eta))
        x = self.per_prb * w - ARRIVALS
        if x <= 0:
            return 0.0
        v = self.s(self.eta * (1 - 1 / (0.01 * x)))
        return self.a_total / self.s(self.eta) * v * (1 - v) * self.eta / (0.01 * x * x) * self.per_prb

    def demand(self, p):
        if p > self.p_hat:
            return 0.0
        return brentq(lambda w: self.slope(w) - p, self.w_hat, 60 * self.q, xtol=1e-13)
