"""The bars that speed is judged by: ratios within one run, each from the contenders of one group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

Record = Mapping[str, Any]
AGENT, ENV, UE = "agent_steps_per_cpu_s", "env_steps_per_cpu_s", "ue_steps_per_cpu_s"


class Verdict(NamedTuple):
    """One bar: what is compared, what is wanted, what was found (None: not measured)."""

    bar: str
    wanted: float
    found: float | None
    how: str

    @property
    def met(self) -> str:
        """Whether it is met: "yes", "no" or "not measured"."""
        return "not measured" if self.found is None else ("yes" if self.found >= self.wanted else "no")


def best(records: Sequence[Record], key: str, **wanted: Any) -> tuple[float, str] | None:
    """The fastest record whose fields are as wanted (a value, or a predicate), and its label."""
    from .throughput_report import label

    found = []
    for record in records:
        if all(v(record[k]) if callable(v) else record[k] == v for k, v in wanted.items()):
            value = record[key]["median"] if isinstance(record[key], Mapping) else record[key]
            found.append((value, label(record)))
    return max(found) if found else None


def _ratio(
    bar: str, wanted: float, ours: tuple[float, str] | None, theirs: tuple[float, str] | float | None
) -> Verdict:
    if ours is None or theirs is None:
        return Verdict(bar, wanted, None, "")
    other, name = theirs if isinstance(theirs, tuple) else (theirs, f"{theirs:,.0f}/s")
    return Verdict(bar, wanted, ours[0] / other, f"{ours[1]} against {name}")


def verdicts(content: Mapping[str, Any]) -> list[Verdict]:
    """All bars that this run can judge; every ratio is of CPU-time rates within one group."""
    groups: dict[str, list[Record]] = {}
    for record in content["results"]:
        groups.setdefault(record["group"], []).append(record)
    out: list[Verdict] = []
    for id, judge in _JUDGES.items():
        if id in groups:
            out += judge(groups[id])
    for name, records in groups.items():
        out.append(_beyond_cache(name, records))
    for row in content.get("oracles", ()):
        wanted = 20.0 if row["oracle"].startswith("provider") else 50.0
        out.append(
            Verdict(f"AI-Bazaar's oracle, {row['markets']} markets: {row['oracle']}", wanted, row["ratio"], row["note"])
        )
    for row in content.get("growth", ()):
        if row["consumers"] == 100_000:
            speed = 1.0 / max(row["respond_s"], 1e-9)
            out.append(
                Verdict("game of 100,000 consumers within a second (solutions per second)", 1.0, speed, "certified")
            )
    return out


def _core(
    records: Sequence[Record], batch: int, setting: str | None = None, library: str = ""
) -> tuple[float, str] | None:
    def fits(batch_size: int) -> bool:
        return batch_size == batch

    extra: dict[str, Callable[[Any], bool]] = {}
    if setting is not None:
        extra["setting"] = lambda s: s == setting
    if library:
        extra["library"] = lambda name: name.startswith(library)
    return best(records, AGENT, system="marketenvs", shell="core", batch=fits, **extra)


def _vmas(records: Sequence[Record], batch: int) -> tuple[float, str] | None:
    return best(records, AGENT, system="vmas", batch=batch)


def _bazaar(records: Sequence[Record]) -> list[Verdict]:
    main = "mining=sampled"
    out = []
    for batch in (1024, 8192):
        out.append(
            _ratio(f"AI-Bazaar, agent-steps, B={batch}, vmas", 10.0, _core(records, batch, main), _vmas(records, batch))
        )
        numpy = _core(records, batch, main, "numpy")
        out.append(_ratio(f"AI-Bazaar, the same with NumPy alone, B={batch}, vmas", 10.0, numpy, _vmas(records, batch)))
    everything = best(records, AGENT, system="marketenvs", shell="core", setting=main)
    out.append(_ratio("AI-Bazaar, agent-steps, jaxmarl", 30.0, everything, best(records, AGENT, system="jaxmarl")))
    parallel = best(records, AGENT, system="marketenvs", shell="parallel env")
    out.append(
        _ratio(
            "AI-Bazaar through PettingZoo, agent-steps by rounds, mpe2",
            5.0,
            parallel,
            best(records, AGENT, system="mpe2"),
        )
    )
    if parallel is not None:  # PettingZoo's own count: every live agent at every env.step, of which a round has two
        twice = (2.0 * parallel[0], parallel[1])
        peer = best(records, AGENT, system="mpe2")
        out.append(_ratio("AI-Bazaar through PettingZoo, live agents per env.step, mpe2", 5.0, twice, peer))
    sb3 = best(records, AGENT, system="marketenvs", shell="SB3 VecEnv", batch=128)
    out.append(
        _ratio(
            "AI-Bazaar's SB3 VecEnv, agent-steps, SuperSuit's route, B=128",
            1.0,
            sb3,
            best(records, AGENT, system="supersuit"),
        )
    )
    return out + _limits("AI-Bazaar", records, main)


def _limits(name: str, records: Sequence[Record], setting: str) -> list[Verdict]:
    """Our best batch against the kernel's best: 4x for NumPy, 1.5x for JAX; as the limit's share, so that more is better."""
    out = []
    for library, dtype, factor in (("numpy float64", "float64", 4.0), ("jax", "float32", 1.5)):
        kernel = best(records, AGENT, system="limit", shell="fused kernel", library=f"numba {dtype}")
        ours = best(
            records,
            AGENT,
            system="marketenvs",
            shell="core",
            setting=setting,
            library=lambda x, lib=library: x.startswith(lib),
        )
        out.append(
            _ratio(f"{name}, {library} as a share of the fused kernel (within {factor:g}x)", 1.0 / factor, ours, kernel)
        )
    return out


def _bertrand(records: Sequence[Record]) -> list[Verdict]:
    return [
        _ratio(
            f"Spectrum Bertrand ({rule}), agent-steps, B={batch}, vmas",
            2.0,
            _core(records, batch, setting),
            _vmas(records, batch),
        )
        for rule, setting in (("channel", ""), ("logit", "matching=logit"))
        for batch in (1024, 8192)
    ]


def _two_tier(records: Sequence[Record]) -> list[Verdict]:
    out = [
        _ratio(f"Two-tier bidding, agent-steps, B={batch}, vmas", 1.0, _core(records, batch, ""), _vmas(records, batch))
        for batch in (1024, 8192)
    ]
    return out + _limits("Two-tier bidding", records, "")


def _coalition(records: Sequence[Record]) -> list[Verdict]:
    batched = best(records, AGENT, system="marketenvs", shell="core", library=lambda x: x.startswith("numpy"))
    single = best(records, ENV, system="marketenvs", shell="core", library="numpy float64", batch=1)
    return [
        _ratio("Coalition trading (frozen), NumPy agent-steps/s, of 0.5 million", 1.0, batched, 0.5e6),
        _ratio("Coalition trading, NumPy rounds/s at B=1, of 500", 1.0, single, 500.0),
    ]


def _federated(records: Sequence[Record]) -> list[Verdict]:
    theirs = best(records, UE, system="mobile-env")
    one = best(records, UE, system="marketenvs", shell="parallel env")
    batched = best(records, UE, system="marketenvs", shell="core", library=lambda x: x.startswith("numpy"))
    alone = best(records, UE, system="marketenvs", subject="channel module")
    return [
        _ratio("Federated slicing, NumPy device-steps/s, of 3 million", 1.0, batched, 3e6),
        _ratio("Federated slicing through PettingZoo, B=1, UE-steps, mobile-env", 300.0, one, theirs),
        _ratio("Federated slicing batched (NumPy), UE-steps, mobile-env", 2000.0, batched, theirs),
        _ratio("Channel module alone, UE-steps, mobile-env", 10_000.0, alone, theirs),
    ]


def _beyond_cache(name: str, records: Sequence[Record]) -> Verdict:
    """The largest batch in blocks against the best batch in one piece (NumPy float64)."""
    blocks = best(records, AGENT, system="marketenvs", library="numpy float64 in blocks")
    setting = next((r["setting"] for r in records if r["library"] == "numpy float64 in blocks"), "")
    whole = best(records, AGENT, system="marketenvs", shell="core", library="numpy float64", setting=setting)
    return _ratio(f"{name}: largest batch in blocks, as a share of the best batch", 0.75, blocks, whole)


_JUDGES: dict[str, Callable[[Sequence[Record]], list[Verdict]]] = {
    "AIBazaar-v0": _bazaar,
    "SpectrumBertrand-v0": _bertrand,
    "TwoTierBidding-v0": _two_tier,
    "CoalitionTrading-v0": _coalition,
    "FederatedSlicing-v0": _federated,
}
