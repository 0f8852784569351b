"""The specification's reference games and numbers (section 5, cases A-L): none is this repository's own output."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from marketenvs.registry import make

ID = "FederatedSlicing-v0"
PHI0 = np.array([12.4, 8.3, 4.1, 6.6, 6.6, 5.0])
DELAY = np.array([False, False, False, True, True, True])
SHARE = np.array([0.0, 0.0, 0.0, 0.5, 0.8, 1 / 6])
PEAKS_A = [15.66184221, 10.48332987, 5.178512343, 7.743394592, 7.231432731, 6.175236996]
REST_A = [10.48332987, 5.178512343, 7.743394592, 7.231432731, 6.175236996]
LAMBDA_F = np.array([0.3, 0.5, 0.7] * 2)


class Case(NamedTuple):
    """One reference market: what to build and what must come out."""

    need: Any
    load_share: Any = SHARE
    is_delay: Any = DELAY
    options: dict = {}
    scale: float | None = None
    requests: Any = None
    grants: Any = None
    reward: Any = None
    welfare: float | None = None
    integer: tuple | None = None
    fluid: float | None = None
    fluid_grants: Any = None


CASES = {
    "A": Case(
        PHI0,
        scale=0.263761869451,
        requests=[50, 39.74543359, 19.63328647, 29.35752089, 27.41652061, 23.41216723],
        grants=[13.18809347, *REST_A],
        reward=[0.7969954908, 0.8622665964, 0.8622665964, 0.8907295515, 0.9374197419, 0.8549690461],
        welfare=5.2046470231,
        integer=(5.22155721962, [14, 10, 5, 8, 7, 6]),
        fluid=5.242258809,
        fluid_grants=[14.46120516, 9.900994521, 5.019811994, 7.532097894, 7.152535471, 5.933354961],
    ),
    "B": Case(
        0.2 * PHI0,
        scale=1.0,
        requests=0.2 * np.array(PEAKS_A),
        grants=0.2 * np.array(PEAKS_A),
        welfare=5.26991812867,
        integer=(4.98293667034, [3, 2, 1, 2, 2, 1]),
        fluid=5.26991812867,
        fluid_grants=0.2 * np.array(PEAKS_A),
    ),
    "C": Case(
        2 * PHI0,
        requests=[50] * 6,
        grants=[8.333333333] * 6,
        reward=[0.1686635535, 0.2544178546, 0.7622805393, 0.3156565657, 0.3156565657, 0.4545957567],
        welfare=2.27127083538,
        integer=(3.50134549892, [0, 0, 10, 15, 14, 11]),
        fluid=3.512277242,
        fluid_grants=[0, 0.1079987564, 9.681355896, 14.66874944, 14.15163788, 11.39025803],
    ),
    "D": Case(
        1.3 * PHI0,
        scale=0.176200629295,
        requests=[50, 50, 38.20682181, 50, 50, 45.56060967],
        grants=[8.810031465, 8.810031465, 6.732066046, 8.810031465, 8.810031465, 8.027808095],
        welfare=4.14170356234,
        integer=(4.47655501868, [5, 12, 6, 10, 9, 8]),
        fluid=4.516617591,
    ),
    "E": Case(
        1.3 * PHI0,
        options={"request_max": [20, 10, 10, 8, 8, 5]},
        scale=0.848390861844,
        requests=[20, 10, 7.935099668, 8, 8, 5],
        grants=[16.96781724, 8.483908618, 6.732066046, 6.787126895, 6.787126895, 4.241954309],
        welfare=3.21557128179,
        integer=(3.43555521073, [16, 10, 6, 8, 5, 5]),
        fluid=3.444586536,
        fluid_grants=[16.12, 10, 6.205079876, 8, 4.674920124, 5],
    ),
    "F": Case(
        1.3 * PHI0,
        options={
            "steepness": [5, 10, 20, 5, 10, 20],
            "utilisation_weight": LAMBDA_F,
            "utility_weight": 1 - LAMBDA_F,
        },
        scale=0.18491711667,
        grants=[9.245855834, 9.245855834, 5.896213619, 9.245855834, 9.245855834, 7.120363047],
        welfare=4.25383610045,
        integer=(4.50116168378, [4, 13, 6, 11, 9, 7]),
        fluid=4.521957991,
    ),
    "G": Case(
        np.array([60.0, *PHI0[1:]]),
        scale=0.263761869451,
        requests=[50, 39.74543359, 19.63328647, 29.35752089, 27.41652061, 23.41216723],
        grants=[13.18809347, *REST_A],
        welfare=4.51775668902,
        fluid=4.519928857,
        fluid_grants=[13.69130122, 10.25089875, 5.118707904, 7.658829141, 7.200521436, 6.079741554],
    ),
    "H": Case(
        np.full(6, 10.0),
        load_share=0.0,
        is_delay=False,
        requests=[50] * 6,
        grants=[8.333333333] * 6,
        reward=[0.4961012191] * 6,
        welfare=2.97660731464,
        fluid=3.75002269893,
    ),
    "I": Case(
        np.array([30.0, 40.0]),
        load_share=[0.0, 0.5],
        is_delay=[False, True],
        grants=[25, 25],
        reward=[0.4961012191, 0.3125],
        welfare=0.808601219107,
        integer=(1.03687220693, [34, 16]),
        fluid=1.037326444,
        fluid_grants=[34.44608925, 15.55391075],
    ),
}

# x* at Lambda = mu: steepness -> (rate, c = 1/6, c = .5, c = .8)
PEAK_RATIOS = {
    10: (1.2630517910, 1.2350473992, 1.1732416049, 1.0956716259),
    5: (1.4118076508, 1.2553241236, 1.2319626962, 1.1513894976),
    20: (1.1607574611, 1.1489506663, 1.1040817983, 1.0532781051),
}
RISK = {  # sigma -> (rate, delay c = .5)
    0.0: (1.263, 1.173),
    0.05: (1.274, 1.195),
    0.1: (1.303, 1.249),
    0.2: (1.403, 1.386),
    0.3: (1.529, 1.533),
    0.5: (1.834, 1.859),
}
POA = {20: 1, 60: 1, 80: 1, 100: 1.0072266, 120: 1.0352769, 130: 1.0905217, 160: 1.3415053, 200: 1.546393}


def reduced(need, load_share=SHARE, is_delay=DELAY, **options):
    """The market whose slots are exactly this game: needs given, nothing random."""
    count = len(need)
    shares = np.broadcast_to(load_share, (count,))
    options.setdefault("device_load", 0.1)
    return make(
        ID,
        preset="reduced",
        n_slices=count,
        mean_need=need,
        mean_load_share=shares,
        packet_kbit=8.0,
        delay_bound_ms=np.where(np.broadcast_to(is_delay, (count,)), 100.0, 0.0),
        **options,
    )
