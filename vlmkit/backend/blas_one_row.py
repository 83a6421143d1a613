"""One-row products go to the library's matrix-vector product.

A step of one row in decoding is nothing but reading weights. OpenBLAS's ``cblas_sgemm`` packs the
matrix before it multiplies; its ``cblas_sgemv`` does not. Measured with 896 x 151,936 weights on
two cores with AVX-512: 5.9 GB/s by the matrix product, 13 with the weight held transposed, 30 by
the matrix-vector product, either way round. So the weights stay as they are, and a redirection of
a few instructions, written into a page of its own, needs no compiler. On AArch64 OpenBLAS does the
same by itself.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import struct

from vlmkit.backend.elf import protect

# Arguments of cblas_sgemm by the System V ABI: edi order, esi and edx whether A and B are
# transposed, ecx M, r8d N, r9d K, xmm0 alpha, xmm1 beta, and on the stack from rsp+8 A, lda, B,
# ldb, C, ldc. cblas_sgemv: edi order, esi transposed, edx rows, ecx columns, xmm0 alpha, r8 A, r9d
# lda, xmm1 beta, and from rsp+8 x, its stride, y, its stride. So with one row the row is x where it
# stands, C is y, and B is the matrix. The stack's arguments are the callee's to overwrite.
CODE = bytes.fromhex(
    "f30f1efa"  # endbr64
    "83f901"  # cmp ecx, 1                    one row?
    "754f"  # jne product
    "83ff65"  # cmp edi, 101                  row-major?
    "754a"  # jne product
    "4585c9"  # test r9d, r9d                 a sum of nothing is the product's case
    "7e45"  # jle product
    "83fe6f"  # cmp esi, 111                  A as it stands: its row has stride 1, else lda
    "7508"  # jne strided
    "c744241001000000"  # mov dword ptr [rsp+16], 1
    "89d0"  # strided: mov eax, edx
    "4489ca"  # mov edx, r9d                  B as it stands: K x N, to be transposed
    "4489c1"  # mov ecx, r8d
    "be70000000"  # mov esi, 112
    "83f86f"  # cmp eax, 111
    "7404"  # je ready
    "87ca"  # xchg edx, ecx                   B transposed: N x K, as it stands
    "ffce"  # dec esi
    "4c8b442418"  # ready: mov r8, [rsp+24]   B and ldb
    "448b4c2420"  # mov r9d, [rsp+32]
    "488b442428"  # mov rax, [rsp+40]         C, with stride 1
    "4889442418"  # mov [rsp+24], rax
    "c744242001000000"  # mov dword ptr [rsp+32], 1
    "ff2506000000"  # jmp [rip+vector]
    "ff2508000000"  # product: jmp [rip+matrix]
)


def redirect_one_row(matrix: int, vector: int) -> int | None:
    """Make a ``cblas_sgemm`` that gives products of one row to ``cblas_sgemv``.

    Args:
        matrix: the address of a ``cblas_sgemm`` with 32-bit integers.
        vector: the address of the ``cblas_sgemv`` of the same library.

    Returns:
        Its address, good for as long as the process lives; None where there is no such code for
        the processor, or the system allows no new code.
    """
    if platform.machine() != "x86_64" or platform.system() != "Linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    # Never unmapped: products may run until the process ends, later than Python does.
    page = libc.mmap(
        None,
        mmap.PAGESIZE,
        mmap.PROT_READ | mmap.PROT_WRITE,
        mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
        -1,
        0,
    )
    if page == ctypes.c_void_p(-1).value:
        return None
    block = CODE + struct.pack("<QQ", vector, matrix)
    ctypes.memmove(page, block, len(block))
    try:
        protect(page, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC)
    except OSError:
        return None
    return int(page)
