"""Metric families of ours: the prefix of their names, their help, their values by labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from edgeproxy.core.dataplane.times import BOUNDS_S, Times

PREFIX: Final = "edgeproxy_"


def counter(
    name: str, help_text: str, values: Mapping[tuple[str, ...], float], labels: Sequence[str] = ()
) -> Metric:
    """A counter; ``name`` without prefix and ``_total``, ``values`` by the values of ``labels``."""
    return _filled(CounterMetricFamily(PREFIX + name, help_text + ".", labels=labels), values)


def gauge(
    name: str, help_text: str, values: Mapping[tuple[str, ...], float], labels: Sequence[str] = ()
) -> Metric:
    """A gauge, likewise."""
    return _filled(GaugeMetricFamily(PREFIX + name, help_text + ".", labels=labels), values)


def histogram(
    name: str, help_text: str, values: Mapping[tuple[str, ...], Times], labels: Sequence[str] = ()
) -> Metric:
    """A histogram of times, likewise."""
    family = HistogramMetricFamily(PREFIX + name, help_text + ".", labels=labels)
    bounds = [*map(floatToGoString, BOUNDS_S), "+Inf"]
    for of, times in values.items():
        buckets = list(zip(bounds, map(float, accumulate(times.counts)), strict=True))
        family.add_metric(of, buckets, sum_value=times.seconds_sum)
    return family


def _filled(
    family: CounterMetricFamily | GaugeMetricFamily, values: Mapping[tuple[str, ...], float]
) -> Metric:
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family
