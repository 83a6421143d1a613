"""Whether attention multiplies quantized keys and values as they are, or decodes them first."""

from __future__ import annotations

import mlx.core as mx

from vlmkit.backend.choices import Device
from vlmkit.backend.device import current_device

MOST_QUERIES: dict[Device, int] = {"cpu": 8, "metal": 8, "cuda": 0}
"""Queries per key-value head up to which codes are multiplied as they are.

On a CPU a product with codes costs as much again for every query, and decoding costs the same for
any number: they meet at 6 to 16 queries, by bits and width (``benchmarks/bench_kv_cache.py``).
In fewer bits than float32 both ways round otherwise there, so that a result would depend on how a
prompt is cut: then codes are decoded. On Metal it is what mlx-lm does in decoding, in any dtype.
On CUDA codes are decoded.
"""


def reads_codes(num_queries: int, dtype: mx.Dtype) -> bool:
    """Whether so many queries per key-value head, of a dtype, read codes as they are.

    Example:
        >>> from vlmkit.backend.device import use_device
        >>> use_device("cpu")
        >>> [reads_codes(n, mx.float32) for n in (7, 1024)], reads_codes(7, mx.bfloat16)
        ([True, False], False)
    """
    device = current_device()
    return num_queries <= MOST_QUERIES[device] and (device != "cpu" or dtype == mx.float32)


def describe_codes(device: Device) -> str:
    """Return what results record of a device: how codes are read.

    Example:
        >>> describe_codes("cpu"), describe_codes("cuda")
        ('products up to 8 queries a head', 'decoded')
    """
    most = MOST_QUERIES[device]
    return f"products up to {most} queries a head" if most else "decoded"
