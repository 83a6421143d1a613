"""Whether attention multiplies quantized keys and values as they are, or decodes them first."""

from __future__ import annotations

from vlmkit.backend.choices import Device
from vlmkit.backend.device import current_device

MOST_QUERIES: dict[Device, int] = {"cpu": 8, "metal": 8, "cuda": 0}
"""Queries per key-value head up to which codes are multiplied as they are.

On a CPU a product with codes costs as much again for every query, and decoding costs the same for
any number: they meet at 6 to 16 queries, by bits and width (``benchmarks/bench_kv_cache.py``). On
Metal it is what mlx-lm does in decoding. On CUDA codes are decoded.
"""


def reads_codes(num_queries: int) -> bool:
    """Whether so many queries per key-value head read codes as they are.

    Example:
        >>> from vlmkit.backend.device import use_device
        >>> use_device("cpu")
        >>> reads_codes(7), reads_codes(1024)
        (True, False)
    """
    return num_queries <= MOST_QUERIES[current_device()]


def describe_codes(device: Device) -> str:
    """Return what results record of a device: how codes are read.

    Example:
        >>> describe_codes("cpu"), describe_codes("cuda")
        ('products up to 8 queries a head', 'decoded')
    """
    most = MOST_QUERIES[device]
    return f"products up to {most} queries a head" if most else "decoded"
