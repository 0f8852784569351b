"""The channel's speed against its floor and against a hand-fused kernel (numba optional)."""

import pytest

throughput_channel = pytest.importorskip("marketenvs_benchmarks.throughput_channel")


@pytest.mark.slow
def test_speed_on_one_core():
    speeds = throughput_channel.measure(blocks=(32,), rounds=15)
    channel = speeds.pop("channel, 32 slots")["best"]
    assert channel >= 15.0
    assert all(channel >= kernel["best"] / 4.0 for kernel in speeds.values())
